"""Projection: the error jumps from the output to one layer, e -> B^T e, past everything in between.

B has the shape of a dense weight from that layer's units straight to the outputs; as in every feedback
rule, its transpose carries the error. Direct and indirect feedback alignment are made of it.
"""

import math
from collections.abc import Callable, Sequence

import jax
from jaxtyping import Array, Float, Key

from ...contract import Batch
from ...losses import Loss
from ...nets import Chain, affines


def draw_projections(
    layers: Sequence[tuple[int, ...]], model: Chain, init: Callable[..., Array], key: Key[Array, ""]
) -> list[Float[Array, "units outputs"]]:
    """One random B for each of `layers`, the shapes of an example's activity, drawn by `init(key, shape)`."""
    outputs, dtype = math.prod(model.output_shape), affines(model)[0].weight.dtype
    keys = jax.random.split(key, len(layers))
    return [init(k, (math.prod(shape), outputs)).astype(dtype) for k, shape in zip(keys, layers, strict=True)]


def output_error(loss: Loss, output: Float[Array, "batch ..."], batch: Batch) -> Float[Array, "batch outputs"]:
    """e, the derivative of the batch's mean cost with respect to the output, one row an example."""
    return loss.error(output, batch.y).reshape(len(output), -1) / len(output)
