"""Transport: a layer that carries activity up through W and error down through other weights B.

    up:    a = map(h, W, b)
    down:  the error at h is map's transpose with B in the place of W; the weight and bias get the
           layer-local update, and B gets the same increment as W

With it the whole feedback family is plain `jax.grad` of the wired network: feedback alignment drops B's
increment, Kolen-Pollack keeps it, sign symmetry and weight mirrors only choose B. Whatever lies between
the layers (pooling, normalisation, skips, time steps) passes its error exactly. With B = W it *is* backprop.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ...contract import Batch, exact_gradient
from ...losses import Loss
from ...nets import Site, Wiring, affines_above_first, sites, wire
from .._traces import above_first


@partial(jax.custom_vjp[Array], nondiff_argnums=(0,))
def transport(map: Callable[..., Array], h: Array, weight: Array, bias: Array | None, feedback: Array) -> Array:
    """Return `map(h, weight, bias)`, whose backward pass carries the error down through `feedback`."""
    del feedback
    return map(h, weight, bias)


def _up(map: Callable[..., Array], h: Array, weight: Array, bias: Array | None, feedback: Array) -> tuple[Array, tuple]:
    return map(h, weight, bias), (h, weight, bias, feedback)


def _down(map: Callable[..., Array], saved: tuple, error: Array) -> tuple:
    h, weight, bias, feedback = saved
    # The map is linear in h, so the transpose does not depend on h, and XLA drops the forward pass.
    (error_below,) = jax.vjp(lambda h: map(h, feedback, bias), h)[1](error)
    increment, bias_increment = jax.vjp(lambda w, b: map(h, w, b), weight, bias)[1](error)
    return error_below, increment, bias_increment, increment


transport.defvjp(_up, _down)


class Transport(Wiring):
    """Carry the error down through `feedback` instead of the site's own weight.

    Args:
        feedback: B, of the shape of the site's weight.
    """

    feedback: Float[Array, "..."]

    def __call__(self, site: Site, h: Float[Array, "batch ..."]) -> tuple[Array, Array]:
        """Return a and f(a), computed with the site's own weight."""
        a: Array = transport(site.map, h, site.weight, site.bias, self.feedback)
        return a, site.activation(a)


def transported_gradient(
    loss: Loss, model: PyTree, feedback: list[Array], batch: Batch
) -> tuple[Array, Array, PyTree, list[Array]]:
    """The "gradient" of the mean cost with errors carried down through `feedback`.

    Args:
        loss: the cost.
        model: the network.
        feedback: one B for each of `affines_above_first(model)`.
        batch: examples.

    Returns:
        The mean cost, the output, the update of the model, and the increments of `feedback` (those of
        the weights, again).
    """
    transports = iter(feedback)
    wirings = [Transport(next(transports)) if hears else None for hears in above_first(model)]
    value, output, wired = exact_gradient(loss, wire(model, wirings), batch)
    increments = jax.tree.leaves([site.wiring for site in sites(wired)])
    return value, output, wire(wired, [None] * len(wirings)), increments


def draw_like(model: PyTree, init: Callable[..., Array], key: Array) -> list[Array]:
    """One random B for each of `affines_above_first(model)`, drawn by `init(key, shape)`."""
    weights = [site.weight for site in affines_above_first(model)]
    keys = jax.random.split(key, len(weights))
    return [jnp.asarray(init(k, w.shape), w.dtype) for k, w in zip(keys, weights, strict=True)]
