"""The mean of independent noisy estimates."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, PyTree

Estimate = TypeVar("Estimate", bound=PyTree)


def mean_of_draws(estimate: Callable[[Key[Array, ""]], Estimate], draws: int, key: Key[Array, ""]) -> Estimate:
    """Return the mean of `estimate(key)` over independent keys.

    The draws follow one another, so that memory does not grow with their number and a model that is a
    physical device, which can only be in one state at a time, needs no batching rule.

    Args:
        estimate: a function of a random key that returns a pytree of arrays.
        draws: how many estimates to average.
        key: random key.
    """
    first, *rest = jax.random.split(key, draws)
    total = estimate(first)
    if rest:  # One draw needs no loop, in which XLA runs convolutions several times slower on a CPU.
        total, _ = jax.lax.scan(
            lambda total, key: (jax.tree.map(jnp.add, total, estimate(key)), None), total, jnp.stack(rest)
        )
    return jax.tree.map(lambda leaf: leaf / draws, total)
