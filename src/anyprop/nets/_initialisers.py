"""Weight initialisers by name."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from .._checks import choose

Initialiser = Callable[[Key[Array, ""], tuple[int, ...]], Float[Array, "..."]]


def _fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Fan-in and fan-out of a dense (in, out) or convolutional (height, width, in, out) weight."""
    receptive = 1
    for size in shape[:-2]:
        receptive *= size
    return receptive * shape[-2], receptive * shape[-1]


def _normal_by_fan_sum(key: Key[Array, ""], shape: tuple[int, ...]) -> Float[Array, "..."]:
    """N(0, 1 / (fan_in + fan_out)), as the published weight-mirror experiments draw W and B."""
    return jax.random.normal(key, shape) * (1.0 / sum(_fans(shape))) ** 0.5


def _uniform_by_fan_in(key: Key[Array, ""], shape: tuple[int, ...]) -> Float[Array, "..."]:
    """U[-1/sqrt(fan_in), 1/sqrt(fan_in)], the default of PyTorch's layers."""
    bound = _fans(shape)[0] ** -0.5
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


def _zeros(key: Key[Array, ""], shape: tuple[int, ...]) -> Float[Array, "..."]:
    del key
    return jnp.zeros(shape)


INITIALISERS: dict[str, Initialiser] = {
    "glorot-normal": jax.nn.initializers.glorot_normal(),
    "glorot-uniform": jax.nn.initializers.glorot_uniform(),
    "he-normal": jax.nn.initializers.he_normal(),
    "he-uniform": jax.nn.initializers.he_uniform(),
    "lecun-normal": jax.nn.initializers.lecun_normal(),
    "lecun-uniform": jax.nn.initializers.lecun_uniform(),
    "orthogonal": jax.nn.initializers.orthogonal(),
    "normal-by-fan-sum": _normal_by_fan_sum,
    "uniform-by-fan-in": _uniform_by_fan_in,
    "zeros": _zeros,
}


def initialiser(name: str | Initialiser, *, argument: str = "init") -> Initialiser:
    """Return the initialiser called `name`; a callable `(key, shape) -> array` is returned as it is.

    Args:
        name: `glorot-normal`, `glorot-uniform`, `he-normal`, `he-uniform`, `lecun-normal`,
            `lecun-uniform`, `orthogonal`, `normal-by-fan-sum` (variance 1 / (fan_in + fan_out)),
            `uniform-by-fan-in` (within 1/sqrt(fan_in), PyTorch's default) or `zeros`.
        argument: what an error calls the name.

    Raises:
        ValueError: no initialiser has this name; the message names the nearest ones.
    """
    return name if callable(name) else INITIALISERS[choose(argument, name, INITIALISERS)]
