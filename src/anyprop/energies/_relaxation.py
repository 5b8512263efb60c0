"""Relaxations: how a state finds a minimum of an energy, and how that ended.

Projected gradient flow, of the state s of one example in the range R of its units:

    s <- P(s - eps dE/ds),   P(s) the point of R nearest to s

A state at rest, s = P(s - eps dE/ds), is what the derivatives here are taken of. With J = d P(s - eps dE/ds) / ds
the implicit function theorem gives them as sums of (I - J)^-1 = I + J + J^2 + ..., cut off after as many terms as
the relaxation may have steps (recurrent backpropagation, Almeida 1987, Pineda 1987).
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._checks import count, non_negative, positive

State = PyTree[Float[Array, "batch ..."]]
"""The state of a batch of systems: arrays with the batch on the first axis."""


class Settled(NamedTuple):
    """Where a relaxation ended, and how: one entry an example.

    Args:
        state: the state at the end.
        steps: how many steps were taken.
        residual: speed of the fastest unit in the last step, |change of s| / eps, in units of the state.
        converged: whether `residual` is at most the tolerance.
    """

    state: State
    steps: Int[Array, " batch"]
    residual: Float[Array, " batch"]
    converged: Bool[Array, " batch"]


class GradientFlow(eqx.Module):
    """Projected gradient flow, for a fixed number of steps or to a tolerance.

    An example that has settled stands still while the others of its batch go on, so what becomes of it does not
    depend on them. The result can be differentiated, forward and backward, as that of a system at rest: how far
    that holds, `residual` says.

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
        """Refuse numbers out of their range."""
        count("steps", self.steps)
        positive("step_size", self.step_size)
        non_negative("tolerance", self.tolerance)

    def __call__(
        self,
        energy: Callable[[State], Float[Array, " batch"]],
        start: State,
        project: Callable[[State], State],
    ) -> Settled:
        """Relax a batch of systems.

        Args:
            energy: the energy of each example, as a function of the state.
            start: the state to start from.
            project: state -> the nearest state in the range of the units.
        """

        def step(state: State) -> State:
            slope = jax.grad(lambda state: jnp.sum(energy(state)))(state)
            return project(jax.tree.map(lambda s, g: s - self.step_size * g, state, slope))

        def speed(before: State, after: State) -> Float[Array, " batch"]:
            return _distance(before, after) / self.step_size

        def advance(now: tuple[State, Array, Array]) -> tuple[State, Array, Array]:
            state, steps, residual = now
            moved = step(state)
            new = moved, steps + 1, speed(state, moved)
            return _choose(residual > self.tolerance, new, now)

        def unsettled(now: tuple[State, Array, Array]) -> Bool[Array, ""]:
            _, steps, residual = now
            return jnp.any((residual > self.tolerance) & (steps < self.steps))

        def relax(at_rest: Callable[[State], State], start: State) -> tuple[State, tuple[Array, Array]]:
            del at_rest
            still = _distance(start, start)
            if not self.tolerance:  # to look for rest after every step takes a seventh of the time
                pair = jax.lax.fori_loop(0, self.steps, lambda _, pair: (pair[1], step(pair[1])), (start, start))
                return pair[1], (jnp.full_like(still, self.steps), speed(*pair))
            begin = start, jnp.zeros_like(still), jnp.full_like(still, jnp.inf)
            state, steps, residual = jax.lax.while_loop(unsettled, advance, begin)
            return state, (steps, residual)  # as floats: custom_root takes no integers here

        def difference(state: State) -> State:
            return jax.tree.map(jnp.subtract, state, step(state))

        # The derivatives are those of the root, to which the way there does not matter.
        state, (steps, residual) = jax.lax.custom_root(difference, start, relax, self._solve, has_aux=True)
        return Settled(state, steps.astype(int), residual, residual <= self.tolerance)

    def _solve(self, operator: Callable[[State], State], right: State) -> State:
        """The solution v of (I - J) v = r by v <- J v + r, transposed for backward derivatives."""
        # As one vector: a tree of which only some arrays depend on what is differentiated cannot be transposed.
        flat, unflatten = ravel_pytree(right)

        def series(operator: Callable[[Array], Array], right: Array) -> Array:
            return jax.lax.fori_loop(0, self.steps, lambda _, v: v - operator(v) + right, right)

        return unflatten(
            jax.lax.custom_linear_solve(lambda v: ravel_pytree(operator(unflatten(v)))[0], flat, series, series)
        )


def _distance(state: State, other: State) -> Float[Array, " batch"]:
    """The largest difference in any unit of each example."""

    def largest(a: Array, b: Array) -> Float[Array, " batch"]:
        return jnp.max(jnp.abs(a - b), axis=tuple(range(1, a.ndim)))

    distances = jax.tree.leaves(jax.tree.map(largest, state, other))
    return jnp.max(jnp.stack(distances), axis=0)


@jax.vmap
def _choose(first: Bool[Array, ""], one: PyTree, other: PyTree) -> PyTree:
    """Of each example, `one` where `first`, else `other`."""
    return jax.tree.map(lambda a, b: jnp.where(first, a, b), one, other)
