"""What rules ask about a network before they compute: its shapes, and which layers hear an error."""

import jax
from jaxtyping import PyTree

from ..nets import Affine, Chain, Trace, affines, sites


def trace_shapes(model: Chain, examples: int = 1) -> tuple[Trace, ...]:
    """The shapes and types of every site's input, pre-activation and output for a batch of `examples`.

    Raises:
        TypeError: a layer is recurrent, so it has many activities; the message says what to choose instead.
    """
    x = jax.ShapeDtypeStruct((examples, *model.input_shape), affines(model)[0].weight.dtype)
    return jax.eval_shape(model.record, x)[1]


def above_first(model: PyTree) -> list[bool]:
    """Of each site, whether an error is fed back to its input: dense and convolutional ones above the first.

    An error at the input of the first site would be an error at x, which nothing learns from.
    """
    return [i > 0 and isinstance(site, Affine) for i, site in enumerate(sites(model))]
