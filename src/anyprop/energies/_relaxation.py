"""Relaxations: how a state finds its rest, and how that ended.

Of the state s of one example, in the range R of its units, with P(s) the point of R nearest to s:

    GradientFlow:  s <- P(s + eps ds/dt),       ds/dt = -dF/ds for an energy F
    FixedPoint:    s <- sigma(dPhi/ds)          all units at once: each where it would rest, given the others
    Sweeps:        s_k <- sigma(dPhi/ds)_k      one array of the state after the other, from the first to the last

A state at rest, s = step(s), is what the derivatives here are taken of. With J = d step / ds the implicit function
theorem gives them as sums of (I - J)^-1 = I + J + J^2 + ..., cut off after as many terms as the relaxation may have
steps (recurrent backpropagation, Almeida 1987, Pineda 1987).
"""

import abc
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Inexact, Int, Key, PyTree

from .._checks import count, non_negative, positive

State = PyTree[Inexact[Array, "batch ..."]]
"""The state of a batch of systems: arrays with the batch on the first axis."""


class Dynamics(NamedTuple):
    """What moves the state of a batch of systems.

    Args:
        velocity: state -> ds/dt.
        project: state -> the nearest state in the range of the units.
        answer: state -> where every unit would rest, given all the others; None where no closed form is known.
    """

    velocity: Callable[[State], State]
    project: Callable[[State], State]
    answer: Callable[[State], State] | None = None


class Settled(NamedTuple):
    """Where a relaxation ended, and how: one entry an example.

    Args:
        state: the state at the end.
        steps: how many steps were taken.
        residual: speed of the fastest unit in the last step, |change of s| / eps, in units of the state.
        converged: whether `residual` is at most the tolerance.
        speeds: the same speed within each array of the state, in the order of `jax.tree.leaves`: of a layered system,
            from the first layer to the last. Empty where only the residual is known.
    """

    state: State
    steps: Int[Array, " batch"]
    residual: Float[Array, " batch"]
    converged: Bool[Array, " batch"]
    speeds: tuple[Float[Array, " batch"], ...] = ()


Speeds = tuple[Float[Array, " batch"], ...]
"""How fast the fastest unit of each array of a state moves."""

Progress = tuple[State, Int[Array, " batch"], Speeds]
"""A state, how many steps it has taken, and how fast it moved in the last one."""


class Relaxation(eqx.Module):
    """A way for a system to settle."""

    @abc.abstractmethod
    def __call__(self, dynamics: Dynamics, start: State, *, key: Key[Array, ""] | None = None) -> Settled:
        """Relax a batch of systems.

        Args:
            dynamics: what moves them.
            start: the state to start from.
            key: random key; only relaxations with noise need one.
        """


class ToRest(Relaxation):
    """A relaxation that looks for a state at rest, in so many steps at most."""

    steps: eqx.AbstractVar[int]
    tolerance: eqx.AbstractVar[float]

    def __check_init__(self):
        """Refuse numbers out of their range."""
        count("steps", self.steps)
        non_negative("tolerance", self.tolerance)


class Iteration(ToRest):
    """A step, taken a fixed number of times or to a tolerance.

    An example that has settled stands still while the others of its batch go on, so what becomes of it does not
    depend on them. The result can be differentiated, forward and backward, as that of a system at rest: how far
    that holds, `residual` says.
    """

    @abc.abstractmethod
    def step(self, dynamics: Dynamics, state: State) -> State:
        """Return the state after one step."""

    @property
    def duration(self) -> float:
        """Time that passes in a step, in units of the system's time constant."""
        return 1.0

    def __call__(self, dynamics: Dynamics, start: State, *, key: Key[Array, ""] | None = None) -> Settled:
        """Relax a batch of systems; there is no noise, so the key goes unused."""
        del key

        def step(state: State) -> State:
            return self.step(dynamics, state)

        def advance(now: Progress) -> Progress:
            state, steps, residual = now
            moved = step(state)
            new = moved, steps + 1, speeds(state, moved, self.duration)
            return either(fastest(residual) > self.tolerance, new, now)

        def unsettled(now: Progress) -> Bool[Array, ""]:
            _, steps, residual = now
            return jnp.any((fastest(residual) > self.tolerance) & (steps < self.steps))

        def relax(at_rest: Callable[[State], State], start: State) -> tuple[State, tuple[Array, Speeds]]:
            del at_rest
            still = speeds(start, start)
            steps = jnp.zeros_like(fastest(still), jnp.int32)
            if not self.tolerance:  # to look for rest after every step takes a seventh of the time
                before, state = jax.lax.fori_loop(
                    0, self.steps, lambda _, pair: (pair[1], step(pair[1])), (start, start)
                )
                return state, (as_told(steps + self.steps), speeds(before, state, self.duration))
            begin = start, steps, jax.tree.map(lambda v: jnp.full_like(v, jnp.inf), still)
            state, steps, residual = jax.lax.while_loop(unsettled, advance, begin)
            return state, (as_told(steps), residual)

        def difference(state: State) -> State:
            return jax.tree.map(jnp.subtract, state, step(state))

        # The derivatives are those of the root, to which the way there does not matter.
        state, (steps, residual) = jax.lax.custom_root(difference, start, relax, self._solve, has_aux=True)
        return settled(state, steps.astype(int), residual, self.tolerance)

    def _solve(self, operator: Callable[[State], State], right: State) -> State:
        """The solution v of (I - J) v = r by v <- J v + r, transposed for backward derivatives."""
        # As one vector: a tree of which only some arrays depend on what is differentiated cannot be transposed.
        flat, unflatten = ravel_pytree(right)

        def series(operator: Callable[[Array], Array], right: Array) -> Array:
            return jax.lax.fori_loop(0, self.steps, lambda _, v: v - operator(v) + right, right)

        return unflatten(
            jax.lax.custom_linear_solve(lambda v: ravel_pytree(operator(unflatten(v)))[0], flat, series, series)
        )


class GradientFlow(Iteration):
    """Projected gradient flow: every unit moves with its velocity, and stays in its range.

    Args:
        steps: steps at most, a positive number.
        step_size: eps, in units of the system's time constant; above 0. A quadratic well of curvature c needs
            less than 2 / c.
        tolerance: an example has settled once no unit moves faster than this, in units of the state per time
            constant. At 0 all steps are taken.

    Raises:
        ValueError: a number is out of its range.
    """

    steps: int = eqx.field(static=True, default=100)
    step_size: float = eqx.field(static=True, default=0.5)
    tolerance: float = eqx.field(static=True, default=0.0)

    def __check_init__(self):
        """Refuse a step size that is not above 0."""
        positive("step_size", self.step_size)

    @property
    def duration(self) -> float:
        """The step size."""
        return self.step_size

    def step(self, dynamics: Dynamics, state: State) -> State:
        """Return P(s + eps ds/dt)."""
        velocity = dynamics.velocity(state)
        return dynamics.project(jax.tree.map(lambda s, v: s + self.step_size * v, state, velocity))


class FixedPoint(Iteration):
    """The discrete-time dynamics: all units go at once to where they would rest, given the others.

    It takes fewer and larger steps than a gradient flow and has no step size. It can end in a cycle of two states;
    `residual` says so.

    Args:
        steps: steps at most, a positive number.
        tolerance: an example has settled once no unit moves further than this in a step, in units of the state. At
            0 all steps are taken.

    Raises:
        ValueError: a number is out of its range.

    References:
        Ernoult, Grollier, Querlioz, Bengio & Scellier. Updates of equilibrium prop match gradients of backprop
        through time in an RNN with static input. NeurIPS 2019.
    """

    steps: int = eqx.field(static=True, default=100)
    tolerance: float = eqx.field(static=True, default=0.0)

    def step(self, dynamics: Dynamics, state: State) -> State:
        """Return sigma(dPhi/ds)."""
        return _answer(dynamics)(state)


class Sweeps(Iteration):
    """Exact coordinate descent: one array of the state after another goes to its rest, given the others.

    Of a layered system, a step is a sweep from the first layer to the last. Where units answer with their exact rest,
    no sweep raises the energy, so it always converges where that has a lowest point: in a `Resistive` or `Hopfield`
    network, under a nudge too if that is quadratic in single units, as squared error is. A unit of a `Convergent`
    network answers a nudge by its slope where the unit stands, so strong ones need the gradient flow. In a chain this
    takes pooling by mean: what a unit gets through the maximum or the softmax of a window depends on its own rate, so
    that a sweep may raise the energy there and go on for ever, and leave a residual.

    Args:
        steps: sweeps at most, a positive number.
        tolerance: an example has settled once no unit moves further than this in a sweep, in units of the state. At
            0 all sweeps are made.

    Raises:
        ValueError: a number is out of its range.

    References:
        Scellier. A fast algorithm to simulate nonlinear resistive networks. ICML 2024.
    """

    steps: int = eqx.field(static=True, default=30)
    tolerance: float = eqx.field(static=True, default=0.0)

    def step(self, dynamics: Dynamics, state: State) -> State:
        """Return the state after each of its arrays has answered the others."""
        answer = _answer(dynamics)
        arrays, structure = jax.tree.flatten(state)
        for k in range(len(arrays)):
            arrays[k] = jax.tree.leaves(answer(jax.tree.unflatten(structure, arrays)))[k]
        return jax.tree.unflatten(structure, arrays)


def _answer(dynamics: Dynamics) -> Callable[[State], State]:
    """The dynamics' answer, or what to say without one."""
    if dynamics.answer is None:
        raise TypeError(
            "this system has no closed form for where a unit rests, given the others; pass relaxation=GradientFlow(), "
            "or read the chain as energies.Convergent, whose units have one"
        )
    return dynamics.answer


def settled(state: State, steps: Int[Array, " batch"], speeds: Speeds, tolerance: float) -> Settled:
    """Where a relaxation ended, and whether it was at rest."""
    residual = fastest(speeds)
    return Settled(state, steps, residual, residual <= tolerance, speeds)


def as_told(steps: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
    """A count of steps as `custom_root` takes it, as floats: of single precision, for half has too few digits."""
    return steps.astype(jnp.float32)


def speeds(before: State, after: State, duration: float = 1.0) -> Speeds:
    """How fast the fastest unit of each array went from one state to the other."""

    def largest(a: Array, b: Array) -> Float[Array, " batch"]:
        return jnp.max(jnp.abs(a - b), axis=tuple(range(1, a.ndim))) / duration

    return tuple(jax.tree.leaves(jax.tree.map(largest, before, after)))


def fastest(speeds: Speeds) -> Float[Array, " batch"]:
    """The speed of the fastest unit of all arrays."""
    return jnp.max(jnp.stack(speeds), axis=0)


@jax.vmap
def either(first: Bool[Array, ""], one: PyTree, other: PyTree) -> PyTree:
    """Of each example, `one` where `first`, else `other`."""
    return jax.tree.map(lambda a, b: jnp.where(first, a, b), one, other)
