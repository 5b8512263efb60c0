"""Networks written in Equinox, read as chains."""

import copy
import math
from collections.abc import Iterator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from .. import _checks
from ._activations import Activation, identity
from ._chain import Chain
from ._convolution import Conv
from ._stage import Activate, Affine, Dense, Flatten, Norm, Pool, Site, Stage

Network = eqx.nn.Sequential | eqx.nn.MLP


def from_equinox(model: Network, *, input_shape: tuple[int, ...]) -> Chain:
    """Return the `Chain` that computes what an `equinox.nn.Sequential` or `equinox.nn.MLP` computes.

    Use it to train a network you already have by any rule. Equinox layers take one example with the
    channels first; a chain takes a batch with the channels last. Where the network flattens an image,
    the next weights are put in the new order, so that the function stays the same. That it does is
    tried on a random batch before the chain is returned.

    Args:
        model: an `MLP`, or a `Sequential` of `Linear`, `Conv2d`, `MaxPool2d`, `AvgPool2d`, `Lambda` (an
            elementwise function, or `jnp.ravel` to flatten), `LayerNorm` over one axis, `Identity`, `MLP`
            and nested `Sequential` layers.
        input_shape: shape of one example as the *chain* takes it: `(784,)`, or `(28, 28, 1)` for images.

    Raises:
        TypeError: a layer has no counterpart; the message names it.
        ValueError: a layer uses an option that `Chain` does not have (dilation, groups, padding other than with
            zeros, ceil mode), the network returns a flattened image, or a layer computes something else than
            its class does.

    Examples:
        >>> import equinox as eqx, jax, anyprop as ap
        >>> k1, k2 = jax.random.split(jax.random.key(0))
        >>> theirs = eqx.nn.Sequential(
        ...     [eqx.nn.Linear(784, 100, key=k1), eqx.nn.Lambda(jax.nn.relu), eqx.nn.Linear(100, 10, key=k2)]
        ... )
        >>> ours = ap.nets.from_equinox(theirs, input_shape=(784,))
    """
    stages: list[Stage] = []
    shape = input_shape = _checks.shape("input_shape", input_shape)
    order: np.ndarray | slice = slice(None)  # of our flat units among theirs: another one behind a flattened image
    for layer in _flat(model):
        stage = _convert(layer, shape, order)
        if isinstance(stage, Flatten) and len(shape) == 3:
            height, width, channels = shape
            order = np.arange(math.prod(shape)).reshape(channels, height, width).transpose(1, 2, 0).ravel()
        elif isinstance(stage, Affine):
            order = slice(None)
        if isinstance(stage, Activate) and stages and _takes_activation(stages[-1]):
            # An affine map and the nonlinearity after it are one layer to every rule.
            stages[-1] = _with_activation(stages[-1], stage.activation)
        else:
            stages.append(stage)
        shape = Chain(stages, input_shape=input_shape).output_shape
    if isinstance(order, np.ndarray) and np.any(np.diff(order) < 0):
        raise ValueError(
            "Lambda(jnp.ravel) flattens an image that the network then returns, in another order than a chain would; "
            "leave it out, or pass a Linear layer after it"
        )
    chain = Chain(stages, input_shape=input_shape)
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(chain)):
        # Weights under a transformation have no numbers to compare; drawn ones of the same shapes have.
        with jax.ensure_compile_time_eval():
            from_equinox(_drawn(model), input_shape=input_shape)
    else:
        _compare(chain, model)
    return chain


def _flat(layer: eqx.Module) -> Iterator[eqx.Module]:
    """The layers inside a layer, in order; after those of an `MLP` the activations that it keeps apart."""
    if isinstance(layer, eqx.nn.Sequential):
        for inner in layer.layers:
            yield from _flat(inner)
    elif isinstance(layer, eqx.nn.MLP):
        _refuse(layer, scan=False)
        *hidden, last = layer.layers
        for inner in hidden:
            yield from (inner, eqx.nn.Lambda(layer.activation))
        yield last
        if hidden:  # without, Equinox leaves the final activation out
            yield eqx.nn.Lambda(layer.final_activation)
    elif not isinstance(layer, eqx.nn.Identity):
        yield layer


def _convert(layer: eqx.Module, shape: tuple[int, ...], order: np.ndarray | slice) -> Stage:
    key = jax.random.key(0)  # for the weights that are replaced at once
    if isinstance(layer, eqx.nn.Linear):
        rows = layer.weight.T
        _refuse(layer, in_features=rows.shape[0], out_features=rows.shape[1])  # no "scalar"
        if shape != rows.shape[:1]:
            raise ValueError(
                f"Linear takes {rows.shape[0]} numbers, and here activities have shape {shape}; pass another "
                "in_features, or Lambda(jnp.ravel) before it"
            )
        made = Dense(*rows.shape, bias=layer.use_bias, init="uniform-by-fan-in", key=key)
        return _with_arrays(made, rows[order], layer.bias)
    if isinstance(layer, eqx.nn.Conv2d):
        _refuse(layer, dilation=(1, 1), groups=1, padding_mode="ZEROS")
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
    if isinstance(layer, eqx.nn.LayerNorm) and layer.shape == shape and len(shape) == 1:
        _refuse(layer, eps=1e-5)
        made = Norm(shape[0])
        weight = made.weight if layer.weight is None else layer.weight[order]
        return _with_arrays(made, weight, made.bias if layer.bias is None else layer.bias[order])
    if isinstance(layer, eqx.nn.Lambda):
        if layer.fn is jnp.ravel:
            return Flatten()
        if jax.tree.leaves(eqx.filter(layer.fn, eqx.is_array)) or not _elementwise(layer.fn, shape):
            raise TypeError(
                f"{layer} has no counterpart in a Chain, whose activations are elementwise and have no weights; write "
                "it as a Stage of your own, pass Lambda(jnp.ravel) to flatten, or leave a last softmax to the loss"
            )
        return Activate(identity if _returns_its_input(layer.fn) else layer.fn)
    raise TypeError(
        f"{type(layer).__name__} has no counterpart in a Chain; write it as a Stage of your own, or pass Linear, "
        "Conv2d, MaxPool2d, AvgPool2d, LayerNorm over one axis, MLP, an elementwise Lambda, or Lambda(jnp.ravel)"
    )


def _elementwise(function: Activation, shape: tuple[int, ...]) -> bool:
    """Whether a function does the same to a number in a batch of activities as to that number alone."""
    with jax.ensure_compile_time_eval():
        scales = 10.0 ** jnp.arange(-1, 3)  # what depends on a norm may do so beyond some norm only
        wide = (max(size, 2) for size in shape)  # along an axis of one a softmax is a constant of each number
        h = jax.vmap(jnp.multiply)(scales, jax.random.normal(jax.random.key(0), (4, *wide)))
        try:
            together, alone = jnp.asarray(function(h)), jnp.asarray(jax.vmap(function)(h.reshape(-1, 1)))
        except (TypeError, ValueError):  # it takes the shape of one example only
            return False
        same = together.shape == h.shape and alone.size == h.size
        return same and bool(jnp.allclose(together, alone.reshape(h.shape), rtol=1e-4, atol=1e-4, equal_nan=True))


def _returns_its_input(function: Activation) -> bool:
    """Whether a function is the identity by another name, which a rule would not know for a linear layer's."""
    jaxpr = jax.make_jaxpr(lambda a: function(a))(jnp.zeros(1)).jaxpr
    return jaxpr.outvars == jaxpr.invars


def _drawn(model: Network) -> Network:
    """The model with random weights."""
    arrays, rest = eqx.partition(model, eqx.is_inexact_array)
    leaves, treedef = jax.tree.flatten(arrays)
    keys = jax.random.split(jax.random.key(0), len(leaves))
    drawn = [
        jax.random.normal(k, a.shape, a.dtype) / math.prod(a.shape[1:]) ** 0.5
        for k, a in zip(keys, leaves, strict=True)
    ]
    return eqx.combine(treedef.unflatten(drawn), rest)


def _compare(chain: Chain, model: Network) -> None:
    """Refuse a chain that differs from the model on a random batch by more than rounding."""

    def both(chain: Chain, model: Network, x: Array) -> tuple[Array, Array]:
        theirs = jax.vmap(lambda x: model(x))(jnp.moveaxis(x, -1, 1) if x.ndim == 4 else x)
        return chain(x), jnp.moveaxis(theirs, 1, -1) if theirs.ndim == 4 else theirs

    dtype = chain._example().dtype
    # Accelerators else round the factors of a matrix product, for speed.
    with jax.ensure_compile_time_eval(), jax.default_matmul_precision("highest"):
        x = jax.random.normal(jax.random.key(0), (2, *chain.input_shape), dtype)
        x = jnp.concatenate([x, jnp.abs(x)])  # some functions are defined for positive numbers only
        ours, theirs = eqx.filter_jit(both)(chain, model, x)
        largest = jnp.max(jnp.abs(theirs), where=jnp.isfinite(theirs), initial=0)
        rounding = largest * float(jnp.finfo(dtype).eps) ** 0.5
        if ours.shape != theirs.shape or not jnp.allclose(ours, theirs, rtol=0, atol=rounding, equal_nan=True):
            raise ValueError(
                "the network and its chain differ on a random batch: a layer does not compute what its class does, or "
                f"{type(model).__name__} does not call its layers in turn; write what differs as a Stage of your own"
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
