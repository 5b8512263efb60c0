"""What becomes of an optimizer's update on its way into conductances.

    g <- clip(g + dg (1 + w xi) - d g, least, most)

A conductance cannot be negative. Real ones take an update inexactly (w), and relax towards an open circuit (d).
"""

import math

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from .._checks import fraction, non_negative


def write_conductances(
    least: float = 0.0, most: float = math.inf, *, noise: float = 0.0, drift: float = 0.0, seed: int = 0
) -> optax.GradientTransformation:
    """Keep conductances in their range, with the noise of writing and the drift between two writes.

    Put it last in an `optax.chain`, to train a `Resistive` network or a device that is made of one:
    `optax.chain(optax.sgd(0.006), write_conductances(1e-6))`. It treats every parameter alike, so a network with
    weights of both signs needs a `least` below 0.

    Args:
        least: the lowest conductance.
        most: the highest conductance.
        noise: w, standard deviation of an update's relative error, drawn for each conductance and write.
        drift: d, the fraction of a conductance that is lost between two writes; 0 or above, below 1.
        seed: of the noise.

    Returns:
        An Optax transformation; it needs `params` in its `update`.

    Raises:
        ValueError: a number is out of its range.
    """
    if not (isinstance(least, int | float) and isinstance(most, int | float) and least < most):
        raise ValueError(f"least={least!r} must be a number below most={most!r}")
    non_negative("noise", noise)
    fraction("drift", drift)

    def init(params: optax.Params) -> optax.OptState:
        del params
        return jax.random.key(seed)

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        if params is None:
            raise ValueError("write_conductances needs the conductances: call update(grads, state, params)")
        assert isinstance(state, jax.Array)  # as init has made it
        key, key_now = jax.random.split(state)
        if noise:
            errors = optax.tree.random_like(key_now, updates)
            updates = jax.tree.map(lambda u, e: u * (1 + noise * e), updates, errors)

        def written(update: Array, g: Array) -> Array:
            change = jnp.clip(g + update - drift * g, least, most) - g
            # Rounding may bring the sum g + change to just outside of the range: one step of the number line back.
            change = jnp.where(g + change < least, jnp.nextafter(change, jnp.inf), change)
            return jnp.where(g + change > most, jnp.nextafter(change, -jnp.inf), change)

        return jax.tree.map(written, updates, params), key

    return optax.GradientTransformation(init, update)
