"""Convolutions: one layer, and on a CPU three ways to compute it, because XLA's own is not always the fastest."""

import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from .._checks import choose, count
from ._activations import Activation
from ._initialisers import Initialiser, initialiser
from ._stage import Affine, Model, _activation, replace_sites, sites


class _Convolution(NamedTuple):
    """(h, W, b) -> W * h + b; a tuple of settings, so that two equal convolutions are one compiled map."""

    stride: int
    padding: str | int
    looped: bool = False

    def __call__(
        self,
        h: Float[Array, "batch height width in"],
        weight: Float[Array, "rows columns in out"],
        bias: Float[Array, " out"] | None,
    ) -> Float[Array, "batch newheight newwidth out"]:
        if self.as_product(h.shape, weight.shape):
            a = self._product(h, weight)
        elif self.looped and jax.default_backend() == "cpu":
            a = self._products(h, weight)
        else:
            a = jax.lax.conv_general_dilated(
                h,
                weight,
                (self.stride, self.stride),
                self._pads(h.shape, weight.shape),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
        return a if bias is None else a + bias

    def _pads(self, h: tuple[int, ...], weight: tuple[int, ...]) -> list[tuple[int, int]]:
        """How many zero pixels stand above and below, and left and right, of inputs of this shape."""
        if isinstance(self.padding, str):
            return list(jax.lax.padtype_to_pads(h[1:3], weight[:2], (self.stride, self.stride), self.padding))
        return [(self.padding, self.padding)] * 2

    def as_product(self, h: tuple[int, ...], weight: tuple[int, ...]) -> bool:
        """Whether inputs and a weight of these shapes are convolved by one matrix product.

        On a CPU, XLA convolves images of few channels slowly, and inside a scan very slowly. A product with
        the kernel's banded matrix multiplies mostly zeros, but at the full rate of a matrix product: LeNet-5
        trains 1.6 times faster by it, and inside a scan 6.8 times (2 cores, batch 128).
        """
        size, _, channels, _ = weight
        plain = self.stride == 1 and all(before == after for before, after in self._pads(h, weight))
        small = h[2] <= 8 * size and size * size * channels <= 256
        return plain and small and jax.default_backend() == "cpu"

    def _product(
        self, h: Float[Array, "batch height width in"], weight: Float[Array, "rows columns in out"]
    ) -> Float[Array, "batch newheight newwidth out"]:
        """The convolution as (stacked rows of h) times (the band of the kernel along the width)."""
        size, _, channels, channels_out = weight.shape
        (pad, _), _ = self._pads(h.shape, weight.shape)
        h = jnp.pad(h, ((0, 0), (pad, pad), (0, 0), (0, 0)))
        batch, padded, width, _ = h.shape
        height, width_out = padded - size + 1, width + 2 * pad - size + 1
        # band[i, x, :, y, :] = weight[i, x - y + pad]: what input column x gives to output column y.
        offset = jnp.arange(width)[:, None] - jnp.arange(width_out) + pad
        inside = ((offset >= 0) & (offset < size))[None, :, :, None, None]
        band = jnp.where(inside, weight[:, jnp.clip(offset, 0, size - 1)], 0.0).transpose(0, 1, 3, 2, 4)
        rows = h.reshape(batch, padded, width * channels)
        stacked = jnp.concatenate([rows[:, i : i + height] for i in range(size)], axis=-1)
        product = stacked.reshape(batch * height, -1) @ band.reshape(-1, width_out * channels_out)
        return product.reshape(batch, height, width_out, channels_out)

    def _products(
        self, h: Float[Array, "batch height width in"], weight: Float[Array, "rows columns in out"]
    ) -> Float[Array, "batch newheight newwidth out"]:
        """The convolution as a sum over the kernel's rows, each a matrix product with all of its columns.

        On a CPU, XLA's own convolution loses its threads and its fast kernels inside a loop: there this is several
        times as fast, outside mostly slower (`benchmarks/convolutions_in_loops.py`).
        """
        channels_out = weight.shape[-1]
        terms = [row @ weight[i].reshape(-1, channels_out) for i, row in enumerate(self._seen(h, weight.shape))]
        return sum(terms[1:], terms[0])

    def patches(
        self, h: Float[Array, "batch height width in"], weight: tuple[int, ...]
    ) -> Float[Array, "batch newheight newwidth seen"]:
        """What a kernel of this shape sees at each of its places, in the order of its weights."""
        return jnp.concatenate(self._seen(h, weight), axis=-1)

    def _seen(
        self, h: Float[Array, "batch height width in"], weight: tuple[int, ...]
    ) -> list[Float[Array, "batch newheight newwidth columns"]]:
        """What each row of the kernel sees, all of its columns side by side."""
        size = weight[0]
        h = jnp.pad(h, ((0, 0), *self._pads(h.shape, weight), (0, 0)))
        height, width = ((n - size) // self.stride + 1 for n in h.shape[1:3])

        def along(axis: int, start: int, number: int, h: Array) -> Array:
            return jax.lax.slice_in_dim(h, start, start + (number - 1) * self.stride + 1, self.stride, axis)

        columns = jnp.concatenate([along(2, j, width, h) for j in range(size)], axis=-1)
        return [along(1, i, height, columns) for i in range(size)]


PADDINGS = ("SAME", "SAME_LOWER", "VALID")


class Conv(Affine):
    """A two-dimensional convolution, h' = f(W * h + b), on images (batch, height, width, channels).

    Args:
        channels_in: input channels.
        channels_out: output channels.
        size: side of the square kernel, in pixels.
        stride: step between kernel positions, in pixels.
        padding: `"SAME"` (an odd pixel at the end), `"SAME_LOWER"` (at the start), `"VALID"`, or a number of zero
            pixels on each side.
        activation: name or elementwise function, see `activation`.
        bias: whether there is a bias for each channel; it starts at zero.
        init: name or function of the weight's initialiser, see `initialiser`.
        key: random key for the weight.

    Raises:
        ValueError: a size is not a positive integer, `padding` is negative, or a name is unknown.
    """

    stride: int = eqx.field(static=True)
    padding: str | int = eqx.field(static=True)

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        size: int,
        *,
        stride: int = 1,
        padding: str | int = "SAME",
        activation: str | Activation = "identity",
        bias: bool = True,
        init: str | Initialiser = "glorot-normal",
        key: Key[Array, ""],
    ):
        for name, value in (("channels_in", channels_in), ("channels_out", channels_out), ("size", size)):
            count(name, value)
        count("stride", stride)
        if isinstance(padding, str):
            choose("padding", padding, PADDINGS)
        else:
            count("padding", padding, least=0)
        self.init = initialiser(init)
        self.weight = self.init(key, (size, size, channels_in, channels_out))
        self.bias = jnp.zeros(channels_out) if bias else None
        self.wiring = None
        self.activation = _activation(activation)
        self.stride = int(stride)  # of NumPy, it would be an array in the place of a setting
        self.padding = padding if isinstance(padding, str) else int(padding)

    @property
    def map(self) -> _Convolution:
        """(h, W, b) -> W * h + b."""
        return _Convolution(self.stride, self.padding)

    def patches(self, h: Float[Array, "batch height width in"]) -> Float[Array, "batch newheight newwidth seen"]:
        """Return what the kernel sees at each of its places, so that W * h is `patches(h) @ W.reshape(-1, out)`."""
        return _Convolution(self.stride, self.padding).patches(h, self.weight.shape)


class _LoopedConv(Conv):
    """A convolution that is computed as is fast inside a loop."""

    def __init__(self, conv: Conv):
        for field in dataclasses.fields(Conv):
            setattr(self, field.name, getattr(conv, field.name))

    @property
    def map(self) -> _Convolution:
        """(h, W, b) -> W * h + b."""
        return _Convolution(self.stride, self.padding, looped=True)


def for_loops(model: Model) -> Model:
    """Return `model` with convolutions that are fast inside a compiled loop, where they are called step after step.

    What they compute is the same. Take it inside the function that is differentiated: it is another tree.
    """
    return replace_sites(model, [_LoopedConv(site) if isinstance(site, Conv) else site for site in sites(model)])
