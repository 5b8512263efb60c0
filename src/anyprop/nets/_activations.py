"""Activations by name: the nonlinearity f in h = f(a)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._checks import choose

Activation = Callable[[Float[Array, "..."]], Float[Array, "..."]]


def identity(a: Float[Array, "..."]) -> Float[Array, "..."]:
    """f(a) = a."""
    return a


def hard_sigmoid(a: Float[Array, "..."]) -> Float[Array, "..."]:
    """f(a) = min(max(a, 0), 1), the rate nonlinearity of equilibrium propagation."""
    return jnp.clip(a, 0.0, 1.0)


def half_hard_sigmoid(a: Float[Array, "..."]) -> Float[Array, "..."]:
    """f(a) = min(max(a / 2, 0), 1), the rate nonlinearity of deep convolutional equilibrium propagation."""
    return jnp.clip(a / 2, 0.0, 1.0)


def steep_sigmoid(a: Float[Array, "..."]) -> Float[Array, "..."]:
    """f(a) = 1 / (1 + exp(2 - 4 a)): the hard sigmoid with smooth corners, slope 1 at a = 1/2."""
    return jax.nn.sigmoid(4 * a - 2)


def sign(a: Float[Array, "..."]) -> Float[Array, "..."]:
    """f(a) = 1 for a > 0, else -1. Its derivative is 0: see `StraightThrough`."""
    return jnp.where(a > 0, 1.0, -1.0).astype(a.dtype)


def step(a: Float[Array, "..."]) -> Float[Array, "..."]:
    """f(a) = 1 for a > 0, else 0. Its derivative is 0: see `StraightThrough`."""
    return (a > 0).astype(a.dtype)


HARD: tuple[Activation, ...] = (sign, step)
"""Activations whose derivative is zero wherever it exists."""

ACTIVATIONS: dict[str, Activation] = {
    "identity": identity,
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "softplus": jax.nn.softplus,
    "elu": jax.nn.elu,
    "gelu": jax.nn.gelu,
    "hard-sigmoid": hard_sigmoid,
    "half-hard-sigmoid": half_hard_sigmoid,
    "steep-sigmoid": steep_sigmoid,
    "sign": sign,
    "step": step,
}


def activation(name: str | Activation, *, argument: str = "activation") -> Activation:
    """Return the activation called `name`; a callable is returned as it is.

    Args:
        name: one of `identity`, `relu`, `tanh`, `sigmoid`, `softplus`, `elu`, `gelu`,
            `hard-sigmoid` (clip to [0, 1]), `half-hard-sigmoid` (clip of a / 2), `steep-sigmoid`
            (sigmoid of 4 a - 2), `sign` (+1 / -1), `step` (1 / 0), or any elementwise function on arrays.
        argument: what an error calls the name.

    Raises:
        ValueError: no activation has this name; the message names the nearest ones.
    """
    return name if callable(name) else ACTIVATIONS[choose(argument, name, ACTIVATIONS)]
