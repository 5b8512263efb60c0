"""The parameters as one vector theta, for rules that look along its axes one by one.

    f(e_1), ..., f(e_n),   e_i the i-th axis of the parameter space

With f a difference or a derivative of the cost these are the entries of its gradient; with f a product
with a symmetric matrix they are its rows.
"""

import dataclasses
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ...contract import Batch
from ...losses import Loss

AXES_AT_A_TIME = 32
"""Axes that one vectorised step looks along: it may hold as many copies of the model at once."""

MOST_PARAMETERS = 5_000
"""Above this a matrix over the parameters is refused: it would take 100 MB and minutes to factorise."""


@dataclasses.dataclass(frozen=True)
class FlatModel:
    """A model, a batch and a cost as functions of the parameter vector.

    Args:
        theta: the model's floating-point arrays, one after the other.
        unravel: lays a vector out in the shape of the model's parameters.
        rest: what the model has besides.
        loss: the cost.
        batch: examples.
    """

    theta: Float[Array, " n"]
    unravel: Callable[[Float[Array, " n"]], PyTree]
    rest: PyTree
    loss: Loss
    batch: Batch

    def predict(self, theta: Float[Array, " n"]) -> Float[Array, "batch ..."]:
        """Return the output of the model whose parameters are `theta`."""
        return eqx.combine(self.unravel(theta), self.rest)(self.batch.x)

    def cost(self, theta: Float[Array, " n"]) -> Float[Array, ""]:
        """Return the mean cost of the model whose parameters are `theta`."""
        return jnp.mean(self.loss(self.predict(theta), self.batch.y))


def flatten(loss: Loss, model: PyTree, batch: Batch) -> FlatModel:
    """Return the cost of `model` on `batch` as a function of one vector."""
    params, rest = eqx.partition(model, eqx.is_inexact_array)
    theta, unravel = ravel_pytree(params)
    return FlatModel(theta, unravel, rest, loss, batch)


def along_axes(
    f: Callable[[Float[Array, " n"]], Float[Array, "..."]], theta: Float[Array, " n"]
) -> Float[Array, "n ..."]:
    """Return f(e_i) for each axis of `theta`, a few axes at a time, so that memory stays bounded."""

    def at(i: Array) -> Array:
        return f(jnp.zeros_like(theta).at[i].set(1))

    return jax.lax.map(at, jnp.arange(theta.size), batch_size=AXES_AT_A_TIME)


def refuse_large(rule: str, model: PyTree) -> PyTree:
    """Return `model` if a matrix over its parameters is affordable.

    Raises:
        TypeError: it has more than `MOST_PARAMETERS` parameters.
    """
    n = sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array)))
    if n > MOST_PARAMETERS:
        raise TypeError(
            f"model has {n:,} parameters, and {rule} solves with a matrix of that many rows; pass "
            f"a model of at most {MOST_PARAMETERS:,}, or choose Backprop with an optimizer such as optax.adam"
        )
    return model
