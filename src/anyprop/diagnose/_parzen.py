"""The Parzen estimate of a log-likelihood: how probable data are under a window around every sample.

    log p(x) = log mean_i N(x; s_i, sigma^2 I)
             = logsumexp_i(-||x - s_i||^2 / (2 sigma^2)) - log n - D/2 log(2 pi sigma^2)

Source: Breuleux, Bengio and Vincent 2011. Theis, van den Oord and Bethge 2016 show what it cannot tell.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._checks import count, positive


def parzen_log_likelihood(
    samples: Float[Array, "samples ..."], x: Float[Array, "examples ..."], *, sigma: float, chunk: int = 100
) -> Float[Array, " examples"]:
    """The log-likelihood of data under a mixture of Gaussians, one around each sample of a model.

    Use it to compare with generative models that were published with this measure, at the same number of
    samples and the same `sigma`. In many dimensions it is far from the model's own likelihood, and it prefers
    samples that lie near the middle of clusters of data.

    Args:
        samples: drawn from the model.
        x: data that neither model nor `sigma` was fitted to.
        sigma: standard deviation of the windows, in the units of the data, above 0.
        chunk: examples compared with all samples at once, at least 1: what the memory is in proportion to.

    Returns:
        log p of each example, in nats.

    Raises:
        ValueError: a number is out of its range.

    References:
        Breuleux, Bengio & Vincent. Quickly generating representative samples from an RBM-derived process.
        Neural Computation, 2011.
    """
    positive("sigma", sigma)
    count("chunk", chunk)
    flat = samples.reshape(len(samples), -1)
    squares = jnp.sum(flat**2, axis=1)
    constant = jnp.log(len(flat)) + 0.5 * flat.shape[1] * jnp.log(2 * jnp.pi * sigma**2)

    def one(x: Float[Array, " dimensions"]) -> Float[Array, ""]:
        distances = jnp.sum(x**2) - 2 * flat @ x + squares
        return jax.nn.logsumexp(-distances / (2 * sigma**2)) - constant

    return jax.lax.map(one, x.reshape(len(x), -1), batch_size=chunk)
