"""Relaxations of noisy units: s <- P(step(s) + sigma n), n ~ N(0, I), at every step."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from .._checks import positive
from ._relaxation import Dynamics, Iteration, Relaxation, Settled, State, settled, speeds


class Noisy(Relaxation):
    """A relaxation after each step of which noise is added to every unit. It takes all of its steps.

    `residual` is the speed in the last step, noise included, so that `converged` tells little. Of complex states, real
    and imaginary part have half of the variance each.

    Args:
        relaxation: whose steps these are, a `GradientFlow`, `FixedPoint` or `Sweeps`; its tolerance only serves
            `converged`.
        noise: sigma, the standard deviation of the noise of a step, in units of the state, above 0.

    Raises:
        TypeError: `relaxation` does not repeat one step; a `BacktrackingFlow` does not.
        ValueError: `noise` is out of its range, or it is called without a key.
    """

    relaxation: Iteration
    noise: float = eqx.field(static=True)

    def __check_init__(self):
        """Refuse what has no step to follow by noise, and noise that is none."""
        if not isinstance(self.relaxation, Iteration):
            raise TypeError(
                "relaxation must be one that repeats a step, for noise to follow each, not "
                f"{type(self.relaxation).__name__}; pass GradientFlow(), FixedPoint() or Sweeps()"
            )
        positive("noise", self.noise)

    def __call__(self, dynamics: Dynamics, start: State, *, key: Key[Array, ""] | None = None) -> Settled:
        """Relax a batch of systems, with noise drawn from the key."""
        if key is None:
            raise ValueError("key is missing: units are noisy here; pass key=jax.random.key(0)")
        steps = self.relaxation.steps

        def disturbed(s: Array, key: Array) -> Array:
            return s + self.noise * jax.random.normal(key, s.shape, s.dtype)

        def step(pair: tuple[State, State], key: Array) -> tuple[tuple[State, State], None]:
            _, state = pair
            arrays, structure = jax.tree.flatten(self.relaxation.step(dynamics, state))
            keys = jax.random.split(key, len(arrays))
            noisy = jax.tree.unflatten(structure, [disturbed(s, k) for s, k in zip(arrays, keys, strict=True)])
            return (state, dynamics.project(noisy)), None

        (before, state), _ = jax.lax.scan(step, (start, start), jax.random.split(key, steps))
        last = speeds(before, state, self.relaxation.duration)
        return settled(state, jnp.full(last[0].shape, steps), last, self.relaxation.tolerance)
