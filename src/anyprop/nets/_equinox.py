"""Networks written in Equinox, read as chains."""

import copy
from collections.abc import Iterator

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from ._activations import Activation, identity
from ._chain import Chain
from ._convolution import Conv
from ._stage import Activate, Dense, Flatten, Norm, Pool, Site, Stage


def from_equinox(model: eqx.nn.Sequential, *, input_shape: tuple[int, ...]) -> Chain:
    """Return the `Chain` that computes what an `equinox.nn.Sequential` computes.

    Use it to train a network you already have by any rule. Equinox layers take one example with the
    channels first; a chain takes a batch with the channels last. Where the network flattens an image,
    the next weight's rows are put in the new order, so that the function stays the same.

    Args:
        model: a `Sequential` of `Linear`, `Conv2d`, `MaxPool2d`, `AvgPool2d`, `Lambda` (an elementwise
            function, or `jnp.ravel` to flatten), `LayerNorm` over one axis, `Identity` and nested
            `Sequential` layers.
        input_shape: shape of one example as the *chain* takes it: `(784,)`, or `(28, 28, 1)` for images.

    Raises:
        TypeError: a layer has no counterpart; the message names it.
        ValueError: a layer uses an option that `Chain` does not have (dilation, groups, ceil mode).

    Examples:
        >>> import equinox as eqx, jax, anyprop as ap
        >>> k1, k2 = jax.random.split(jax.random.key(0))
        >>> theirs = eqx.nn.Sequential(
        ...     [eqx.nn.Linear(784, 100, key=k1), eqx.nn.Lambda(jax.nn.relu), eqx.nn.Linear(100, 10, key=k2)]
        ... )
        >>> ours = ap.nets.from_equinox(theirs, input_shape=(784,))
    """
    stages: list[Stage] = []
    shape = tuple(input_shape)
    flattened: tuple[int, ...] | None = None  # the image shape behind the present flat activity, if any
    for layer in _flat(model):
        stage = _convert(layer, shape, flattened)
        flattened = shape if isinstance(stage, Flatten) else flattened if isinstance(stage, Activate) else None
        if isinstance(stage, Activate) and stages and _takes_activation(stages[-1]):
            # An affine map and the nonlinearity after it are one layer to every rule.
            stages[-1] = _with_activation(stages[-1], stage.activation)
        else:
            stages.append(stage)
        shape = Chain(stages, input_shape=tuple(input_shape)).output_shape
    return Chain(stages, input_shape=tuple(input_shape))


def _flat(model: eqx.nn.Sequential) -> Iterator[eqx.Module]:
    for layer in model.layers:
        if isinstance(layer, eqx.nn.Sequential):
            yield from _flat(layer)
        elif not isinstance(layer, eqx.nn.Identity):
            yield layer


def _convert(layer: eqx.Module, shape: tuple[int, ...], flattened: tuple[int, ...] | None) -> Stage:
    key = jax.random.key(0)  # for the weights that are replaced at once
    if isinstance(layer, eqx.nn.Linear):
        rows = layer.weight.T
        if flattened is not None and len(flattened) == 3:
            height, width, channels = flattened
            rows = rows.reshape(channels, height, width, -1).transpose(1, 2, 0, 3).reshape(rows.shape)
        made = Dense(*rows.shape, bias=layer.use_bias, init="uniform-by-fan-in", key=key)
        return _with_arrays(made, rows, layer.bias)
    if isinstance(layer, eqx.nn.Conv2d):
        _refuse(layer, dilation=(1, 1), groups=1)
        channels_out, channels_in, size, columns = layer.weight.shape
        stride, padding = layer.stride[0], layer.padding
        if size != columns or len(set(layer.stride)) > 1:
            raise ValueError(f"{layer} has a kernel or stride that is not square; pass a square one")
        if not isinstance(padding, str):
            if len({pixels for side in padding for pixels in side}) > 1:
                raise ValueError(f"{layer} pads its sides differently; pass one padding for all sides")
            padding = padding[0][0]
        made = Conv(
            channels_in, channels_out, size, stride=stride, padding=padding, bias=layer.use_bias,
            init="uniform-by-fan-in", key=key,
        )  # fmt: skip
        bias = None if layer.bias is None else layer.bias.reshape(-1)
        return _with_arrays(made, layer.weight.transpose(2, 3, 1, 0), bias)
    if isinstance(layer, eqx.nn.MaxPool2d | eqx.nn.AvgPool2d):
        _refuse(layer, padding=((0, 0), (0, 0)), use_ceil=False)
        if len({*layer.kernel_size}) > 1 or len({*layer.stride}) > 1:
            raise ValueError(f"{layer} has a window or stride that is not square; pass a square one")
        kind = "max" if isinstance(layer, eqx.nn.MaxPool2d) else "mean"
        return Pool(kind, layer.kernel_size[0], stride=layer.stride[0])
    if isinstance(layer, eqx.nn.LayerNorm) and layer.shape == shape and len(shape) == 1 and layer.eps == 1e-5:
        made = Norm(shape[0])
        weight = made.weight if layer.weight is None else layer.weight
        return _with_arrays(made, weight, made.bias if layer.bias is None else layer.bias)
    if isinstance(layer, eqx.nn.Lambda):
        if layer.fn is jnp.ravel:
            return Flatten()
        probe = jax.ShapeDtypeStruct(shape, jnp.float32)
        if jax.eval_shape(layer.fn, probe).shape == shape:
            return Activate(layer.fn)
    raise TypeError(
        f"{type(layer).__name__} has no counterpart in a Chain; write it as a Stage of your own, or pass Linear, "
        "Conv2d, MaxPool2d, AvgPool2d, LayerNorm over one axis, an elementwise Lambda, or Lambda(jnp.ravel)"
    )


def _refuse(layer: eqx.Module, **expected: object) -> None:
    for option, value in expected.items():
        if getattr(layer, option) != value:
            raise ValueError(
                f"{type(layer).__name__}.{option}={getattr(layer, option)} has no counterpart; use {value}"
            )


def _with_arrays(site: Site, weight: Array, bias: Array | None) -> Site:
    return eqx.tree_at(lambda s: (s.weight, s.bias), site, (weight, bias), is_leaf=lambda leaf: leaf is None)


def _takes_activation(stage: Stage) -> bool:
    return isinstance(stage, Site) and stage.activation is identity


def _with_activation(site: Stage, function: Activation) -> Stage:
    fused = copy.copy(site)
    object.__setattr__(fused, "activation", function)
    return fused
