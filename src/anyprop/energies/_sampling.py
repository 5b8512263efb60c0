"""Langevin dynamics: gradient flow in a bath of heat, which samples states instead of finding one.

    s <- P(s + eps ds/dt + sqrt(2 eps T) xi),    ds/dt = -dF/ds,    xi ~ N(0, 1) for every unit and step

As eps -> 0 the state of an example is distributed as e^{-F(s) / T} / Z over the range of its units. At a finite step
size it is not quite: in a quadratic well of curvature c the variance is T / (c (1 - eps c / 2)) in place of T / c.

Source: Roberts and Tweedie 1996; Bubeck, Eldan and Lehec 2018 for units of bounded range.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key, PyTree, Shaped

from .._checks import count, non_negative, positive
from ._relaxation import Dynamics, Relaxation, Settled, State, fastest, speeds

Samples = PyTree[Shaped[Array, "samples batch ..."]]
"""States of a batch of systems at several times: as a state, with the times on a new first axis."""


class Langevin(Relaxation):
    """Langevin dynamics, which never come to rest: called, it returns one sample of each example's state.

    It needs a velocity that is the slope of an energy, as that of `Hopfield` is; that of `Convergent` is not. The
    `residual` that it reports is the net speed from the start to the end of the run: high while a state still drifts,
    and falling as 1 / (eps steps) once it only fluctuates. `converged` is always False.

    Args:
        steps: steps to take, a positive number; between two samples, where several are asked for.
        step_size: eps, in units of the system's time constant; above 0. A quadratic well of curvature c needs less
            than 2 / c.
        temperature: T, in units of the energy; 0 or more.

    Raises:
        ValueError: a number is out of its range, or no key is passed to a call.

    References:
        Roberts & Tweedie. Exponential convergence of Langevin distributions and their discrete approximations.
        Bernoulli, 1996.
        Bubeck, Eldan & Lehec. Sampling from a log-concave distribution with projected Langevin Monte Carlo. Discrete
        & Computational Geometry, 2018.
    """

    steps: int = eqx.field(static=True, default=100)
    step_size: float = eqx.field(static=True, default=0.2)
    temperature: float = eqx.field(static=True, default=0.001)

    def __check_init__(self):
        """Refuse numbers out of their range."""
        count("steps", self.steps)
        positive("step_size", self.step_size)
        non_negative("temperature", self.temperature)

    def __call__(self, dynamics: Dynamics, start: State, *, key: Key[Array, ""] | None = None) -> Settled:
        """Take `steps` steps, and return the last state."""
        end = self._run(dynamics, start, _given(key))
        net = speeds(start, end, self.steps * self.step_size)
        speed = fastest(net)
        return Settled(end, jnp.full_like(speed, self.steps, int), speed, jnp.zeros_like(speed, bool), net)

    def sample(self, dynamics: Dynamics, start: State, samples: int, *, key: Key[Array, ""] | None = None) -> Samples:
        """Return the state after every `steps` steps, so many times over.

        Args:
            dynamics: what moves the systems.
            start: the state to start from; it is no sample itself.
            samples: how many samples to take of each example.
            key: random key; it must be given.
        """

        def advance(state: State, key: Key[Array, ""]) -> tuple[State, State]:
            state = self._run(dynamics, state, key)
            return state, state

        return jax.lax.scan(advance, start, jax.random.split(_given(key), samples))[1]

    def _run(self, dynamics: Dynamics, start: State, key: Key[Array, ""]) -> State:
        """The state after `steps` steps."""
        spread = math.sqrt(2 * self.step_size * self.temperature)

        def step(state: State, key: Key[Array, ""]) -> tuple[State, None]:
            velocity, noise = dynamics.velocity(state), optax.tree.random_like(key, state)
            moved = jax.tree.map(lambda s, v, xi: s + self.step_size * v + spread * xi, state, velocity, noise)
            return dynamics.project(moved), None

        return jax.lax.scan(step, start, jax.random.split(key, self.steps))[0]


def _given(key: Key[Array, ""] | None) -> Key[Array, ""]:
    """The key, or what to say without one."""
    if key is None:
        raise ValueError("key is missing: Langevin draws noise from it; pass key=jax.random.key(0)")
    return key
