"""A random rule's update as an estimator of the gradient: its bias, its variance, its signal-to-noise ratio.

Draws come `chunk` at a time and only their running mean and squared deviation stay (Welford 1962, in
the merged form of Chan, Golub and LeVeque 1983), so memory does not grow with their number:

    mean' = mean + (m - mean) k / (n + k),    S' = S + s + |m - mean|^2 n k / (n + k)

for n draws so far, and a chunk of k draws with mean m and summed squared deviation s.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Key, PyTree

from .._checks import count
from ..contract import Batch, Learner, Rule, exact_gradient
from ._layers import by_layer, cosine

Layers = dict[str, Float[Array, ""]]


class Estimate(eqx.Module):
    """What many draws of a rule's update say about it: one number a layer, and one for `"all"`.

    With u a draw, m the mean of all draws, g the exact gradient:

    Args:
        draws: number of draws.
        bias: |m - g| / |g|. Even an unbiased rule shows about `bias_floor` here.
        bias_floor: sqrt(variance / draws) / |g|, the root mean square of what finitely many draws put
            into `bias`.
        scale: <m, g> / |g|^2, the part of the gradient's length that the mean update has; 1 without bias.
        scale_error: standard error of `scale`.
        cosine: cosine of the angle between m and g.
        variance: trace of the covariance of u, E|u - E u|^2.
        variance_error: standard error of `variance`.
        snr: signal-to-noise ratio |E u|^2 / variance, where |E u|^2 is |m|^2 less what finitely many
            draws add to it; 0 where nothing is left.
    """

    draws: int = eqx.field(static=True)
    bias: Layers
    bias_floor: Layers
    scale: Layers
    scale_error: Layers
    cosine: Layers
    variance: Layers
    variance_error: Layers
    snr: Layers


class _Moments(NamedTuple):
    """Running mean of vectors, and the sum of their squared distances from it."""

    mean: Float[Array, " entries"]
    squares: Float[Array, ""]


def estimate(
    rule: Rule, learner: Learner, batch: Batch, *, key: Key[Array, ""], draws: int = 1000, chunk: int = 20
) -> Estimate:
    """Measure a rule's update as an estimator of the exact gradient, by drawing it many times.

    Args:
        rule: the rule.
        learner: what it trains; every draw is made from the same learner.
        batch: examples; the exact gradient is that of the rule's loss on them.
        key: random key; each draw has its own.
        draws: number of draws, at least 2.
        chunk: how many draws to make at once, which takes that many times the memory. A number that
            does not divide `draws` is lowered to the greatest common divisor.

    Raises:
        ValueError: fewer than 2 draws, `chunk` is not a positive integer, or `batch.y` does not fit the loss and the
            network.
    """
    count("draws", draws, least=2)
    count("chunk", chunk)
    model = learner.model
    gradient = checked_gradient(rule, learner, batch)

    def observe(key: Key[Array, ""]) -> tuple[dict[str, Array], ...]:
        update = by_layer(model, rule.credit(learner, batch, key=key).grads[0])
        along = {name: jnp.vdot(u, gradient[name])[None] for name, u in update.items()}
        spread = {name: jnp.sum((u - gradient[name]) ** 2)[None] for name, u in update.items()}
        return update, along, spread

    updates, along, spread = _moments(observe, key, draws, chunk)

    def each(measure: Callable[[str], Array]) -> Layers:
        return {name: measure(name) for name in gradient}

    def standard_error(moments: dict[str, _Moments], name: str) -> Array:
        return jnp.sqrt(moments[name].squares / (draws - 1) / draws)

    power = each(lambda name: jnp.sum(gradient[name] ** 2))
    variance = each(lambda name: updates[name].squares / (draws - 1))
    signal = each(lambda name: jnp.maximum(jnp.sum(updates[name].mean ** 2) - variance[name] / draws, 0.0))
    return Estimate(
        draws=draws,
        bias=each(lambda name: jnp.linalg.norm(updates[name].mean - gradient[name]) / jnp.sqrt(power[name])),
        bias_floor=each(lambda name: jnp.sqrt(variance[name] / draws / power[name])),
        scale=each(lambda name: along[name].mean[0] / power[name]),
        scale_error=each(lambda name: standard_error(along, name) / power[name]),
        cosine=each(lambda name: cosine(updates[name].mean, gradient[name])),
        variance=variance,
        # |u - g|^2 is a shift of |u - E u|^2 by the bias, up to a term whose mean is zero: its spread
        # over draws gives the error without a second pass.
        variance_error=each(lambda name: standard_error(spread, name)),
        snr=each(lambda name: signal[name] / variance[name]),
    )


def checked_gradient(rule: Rule, learner: Learner, batch: Batch) -> dict[str, Float[Array, " entries"]]:
    """The exact gradient layer by layer; a `batch.y` that is not being traced is looked at first.

    Raises:
        ValueError: `batch.y` does not fit the loss and the network.
    """
    if not isinstance(batch.y, Tracer):
        output = eqx.filter_eval_shape(lambda model, x: model(x), learner.model, batch.x)
        rule.loss.check(np.asarray(batch.y), output.shape[-1])
    return by_layer(learner.model, exact_gradient(rule.loss, learner.model, batch)[2])


def mean_update(
    rule: Rule, learner: Learner, batch: Batch, *, key: Key[Array, ""], draws: int, chunk: int = 20
) -> PyTree:
    """The mean of a rule's update of the model over `draws` draws, laid out like the model's parameters."""
    count("draws", draws)

    def update(key: Key[Array, ""]) -> PyTree:
        return rule.credit(learner, batch, key=key).grads[0]

    if draws == 1:
        return update(key)
    return jax.tree.map(lambda m: m.mean, _moments(update, key, draws, chunk), is_leaf=_is_moments)


def _moments(observe: Callable[[Array], PyTree], key: Key[Array, ""], draws: int, chunk: int) -> PyTree:
    """The moments of each array that `observe` returns, over `draws` keys."""
    chunk = math.gcd(draws, chunk)

    def merge(total: PyTree, step: tuple[Array, Array]) -> tuple[PyTree, None]:
        n, keys = step

        def one(old: _Moments, new: Array) -> _Moments:
            m = new.mean(0)
            shift = m - old.mean
            squares = jnp.sum((new - m) ** 2) + jnp.sum(shift**2) * n * chunk / (n + chunk)
            return _Moments(old.mean + shift * chunk / (n + chunk), old.squares + squares)

        return jax.tree.map(one, total, jax.vmap(observe)(keys), is_leaf=_is_moments), None

    start = jax.tree.map(
        lambda leaf: _Moments(jnp.zeros(leaf.shape, leaf.dtype), jnp.zeros((), leaf.dtype)),
        jax.eval_shape(observe, key),
    )
    keys = jax.random.split(key, (draws // chunk, chunk))
    done = jnp.arange(draws // chunk) * chunk
    return jax.lax.scan(merge, start, (done, keys))[0]


def _is_moments(node: object) -> bool:
    return isinstance(node, _Moments)
