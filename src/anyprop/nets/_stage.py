"""Stages: the layers of a network as credit assignment sees them.

A `Stage` is a batch-first map. A `Site` is a stage with parameters, read as the papers read a layer,

    a = map(h, weight, bias),    h' = f(a),

so that a rule can ask for the pre-activation `a`, for the layer's own update (`local_update`), or
change how the layer behaves (`Wiring`) without writing any layer again.
"""

import abc
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from .._checks import choose, count, shape
from ._activations import HARD, Activation, activation
from ._initialisers import Initialiser, initialiser

Model = TypeVar("Model")
AStage = TypeVar("AStage", bound="Stage")


class Trace(NamedTuple):
    """What one site did in a forward pass: its input h, its pre-activation a, its output f(a)."""

    input: Float[Array, "batch ..."]
    drive: Float[Array, "batch ..."]
    output: Float[Array, "batch ..."]


class Stage(eqx.Module):
    """A batch-first map from activities to activities."""

    @abc.abstractmethod
    def __call__(self, h: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """Map a batch of activities, the batch on the first axis."""

    def record(self, h: Float[Array, "batch ..."]) -> tuple[Float[Array, "batch ..."], tuple[Trace, ...]]:
        """Return the output and what every site inside did, in the order of `sites`."""
        return self(h), ()

    def redraw(self: AStage, key: Key[Array, ""]) -> AStage:
        """Return the same stage with weights drawn anew from its own initialisers."""
        own = sites(self)
        fresh = [site.redraw(k) for site, k in zip(own, jax.random.split(key, max(len(own), 1)), strict=False)]
        return replace_sites(self, fresh)


class Wiring(eqx.Module):
    """How a site carries activity up and error down. A rule wires the sites it changes, and only those."""

    @abc.abstractmethod
    def __call__(
        self, site: "Site", h: Float[Array, "batch ..."]
    ) -> tuple[Float[Array, "batch ..."], Float[Array, "batch ..."]]:
        """Return the site's pre-activation a and its output f(a)."""


class Site(Stage):
    """A stage with parameters: h' = f(map(h, weight, bias))."""

    weight: eqx.AbstractVar[Float[Array, "..."]]
    bias: eqx.AbstractVar[Float[Array, "..."] | None]
    wiring: eqx.AbstractVar[Wiring | None]
    activation: eqx.AbstractVar[Activation]

    @property
    @abc.abstractmethod
    def map(self) -> Callable[..., Float[Array, "batch ..."]]:
        """The parametrised part as a pure, hashable function (h, weight, bias) -> a."""

    def drive(self, h: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """The pre-activation a = map(h, weight, bias)."""
        return self.map(h, self.weight, self.bias)

    def respond(self, h: Float[Array, "batch ..."]) -> tuple[Float[Array, "batch ..."], Float[Array, "batch ..."]]:
        """Return a and f(a), through the wiring if there is one."""
        if self.wiring is not None:
            return self.wiring(self, h)
        a = self.drive(h)
        return a, self.activation(a)

    def __call__(self, h: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """Return f(a)."""
        return self.respond(h)[1]

    def record(self, h: Float[Array, "batch ..."]) -> tuple[Float[Array, "batch ..."], tuple[Trace, ...]]:
        """Return f(a) and this site's trace."""
        a, output = self.respond(h)
        return output, (Trace(h, a, output),)


class Affine(Site):
    """A site whose weight mixes units: what feedback rules give a second, backward weight of the same shape."""

    weight: Float[Array, "..."]
    bias: Float[Array, " out"] | None
    wiring: Wiring | None
    activation: Activation = eqx.field(static=True)
    init: Initialiser = eqx.field(static=True)

    def redraw(self, key: Key[Array, ""]) -> "Affine":
        """Return the same site with a fresh weight and a zero bias."""
        weight = self.init(key, self.weight.shape).astype(self.weight.dtype)
        bias = None if self.bias is None else jnp.zeros_like(self.bias)
        return eqx.tree_at(lambda s: (s.weight, s.bias), self, (weight, bias), is_leaf=lambda leaf: leaf is None)


def _dense(
    h: Float[Array, "*batch in"], weight: Float[Array, "in out"], bias: Float[Array, " out"] | None
) -> Float[Array, "*batch out"]:
    a = h @ weight
    return a if bias is None else a + bias


class Dense(Affine):
    """A fully connected layer, h' = f(h W + b).

    Args:
        fan_in: number of input units.
        fan_out: number of output units.
        activation: name or elementwise function, see `activation`.
        bias: whether there is a bias; it starts at zero.
        init: name or function of the weight's initialiser, see `initialiser`.
        key: random key for the weight.

    Raises:
        ValueError: a size is not a positive integer, or a name is unknown.
    """

    def __init__(
        self,
        fan_in: int,
        fan_out: int,
        *,
        activation: str | Activation = "identity",
        bias: bool = True,
        init: str | Initialiser = "glorot-normal",
        key: Key[Array, ""],
    ):
        count("fan_in", fan_in)
        count("fan_out", fan_out)
        self.init = initialiser(init)
        self.weight = self.init(key, (fan_in, fan_out))
        self.bias = jnp.zeros(fan_out) if bias else None
        self.wiring = None
        self.activation = _activation(activation)

    @property
    def map(self) -> Callable[..., Float[Array, "batch ..."]]:
        """(h, W, b) -> h W + b."""
        return _dense


class _Normalise(NamedTuple):
    """(h, scale, offset) -> scale (h - mean) / sd + offset, over groups of channels of one example."""

    groups: int

    def __call__(
        self,
        h: Float[Array, "batch ... channels"],
        weight: Float[Array, " channels"],
        bias: Float[Array, " channels"] | None,
    ) -> Float[Array, "batch ... channels"]:
        grouped = h.reshape(h.shape[0], -1, self.groups, h.shape[-1] // self.groups)
        mean = grouped.mean((1, 3), keepdims=True)
        variance = grouped.var((1, 3), keepdims=True)
        unit = ((grouped - mean) * jax.lax.rsqrt(variance + 1e-5)).reshape(h.shape)
        return unit * weight if bias is None else unit * weight + bias


class Norm(Site):
    """Group normalisation with a learned scale and offset a channel; one group is layer normalisation.

    It normalises each example by itself. Batch normalisation is left out on purpose: it couples the
    examples of a batch and keeps running averages, so an update would no longer be a mean over
    examples, which every per-example rule relies on.

    Args:
        channels: size of the last axis.
        groups: number of groups of channels that share a mean and a variance; divides `channels`.
        activation: name or elementwise function applied after the normalisation.

    Raises:
        ValueError: `channels` or `groups` is not a positive integer, or the one does not divide the other.
    """

    weight: Float[Array, " channels"]
    bias: Float[Array, " channels"] | None
    wiring: Wiring | None
    activation: Activation = eqx.field(static=True)
    groups: int = eqx.field(static=True)

    def __init__(self, channels: int, *, groups: int = 1, activation: str | Activation = "identity"):
        count("channels", channels)
        count("groups", groups)
        if channels % groups:
            raise ValueError(f"groups={groups} must divide channels={channels}")
        self.weight = jnp.ones(channels)
        self.bias = jnp.zeros(channels)
        self.wiring = None
        self.activation = _activation(activation)
        self.groups = int(groups)

    @property
    def map(self) -> Callable[..., Float[Array, "batch ..."]]:
        """(h, scale, offset) -> scale (h - mean) / sd + offset."""
        return _Normalise(self.groups)

    def redraw(self, key: Key[Array, ""]) -> "Norm":
        """Return the same site with scale one and offset zero."""
        del key
        return Norm(self.weight.shape[0], groups=self.groups, activation=self.activation)


class Activate(Stage):
    """An activation on its own, h' = f(h).

    Args:
        activation: name or elementwise function, see `activation`.
    """

    activation: Activation = eqx.field(static=True)

    def __init__(self, activation: str | Activation):
        self.activation = _activation(activation)

    def __call__(self, h: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """Return f(h)."""
        return self.activation(h)


class Flatten(Stage):
    """All axes of an example as one."""

    def __call__(self, h: Float[Array, "batch ..."]) -> Float[Array, "batch flat"]:
        """Return h with one axis an example."""
        return h.reshape(h.shape[0], -1)


class Reshape(Stage):
    """Another shape for each example, such as an image for a flat activity.

    Args:
        shape: shape of one example, without the batch axis.

    Raises:
        ValueError: a size is not a positive integer.
    """

    shape: tuple[int, ...] = eqx.field(static=True)

    def __check_init__(self):
        """Refuse what is no shape."""
        shape("shape", self.shape)

    def __call__(self, h: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """Return h with examples of that shape."""
        return h.reshape(h.shape[0], *self.shape)


class Upsample(Stage):
    """A larger image, each pixel the nearest one of the smaller: what undoes pooling and strides in shape.

    Args:
        height: height of the result, in pixels.
        width: width of the result, in pixels.

    Raises:
        ValueError: a size is not a positive integer.
    """

    height: int = eqx.field(static=True)
    width: int = eqx.field(static=True)

    def __check_init__(self):
        """Refuse sizes that no image has."""
        count("height", self.height)
        count("width", self.width)

    def __call__(self, h: Float[Array, "batch height width channels"]) -> Float[Array, "batch ..."]:
        """Return the enlarged image."""
        rows = jnp.arange(self.height) * h.shape[1] // self.height
        columns = jnp.arange(self.width) * h.shape[2] // self.width
        return h[:, rows][:, :, columns]


POOLINGS = ("max", "mean", "softmax")


class Pool(Stage):
    """Pooling over square windows of an image (batch, height, width, channels).

    Args:
        kind: `"max"`, `"mean"`, or `"softmax"`, the mean weighted by the softmax over the window: a maximum that is
            smooth, and analytic.
        size: side of the window, in pixels.
        stride: step between windows, in pixels; default: `size`, and nothing else with `"softmax"`.

    Raises:
        ValueError: `kind` is unknown, `size` or `stride` is not a positive integer, or windows overlap that cannot.
    """

    kind: str = eqx.field(static=True)
    size: int = eqx.field(static=True)
    stride: int = eqx.field(static=True)

    def __init__(self, kind: str, size: int, *, stride: int | None = None):
        stride = size if stride is None else stride
        self.kind = choose("kind", kind, POOLINGS)
        count("size", size)
        count("stride", stride)
        if kind == "softmax" and stride != size:
            raise ValueError(f"stride={stride} is not the size of the window; pass {size}, or kind='max'")
        self.size, self.stride = int(size), int(stride)

    def __call__(self, h: Float[Array, "batch height width channels"]) -> Float[Array, "batch ..."]:
        """Return the pooled image."""
        if self.stride == self.size:
            # Windows that tile the image are a reshape: several times faster on a CPU than
            # reduce_window, whose gradient for the maximum is a scatter.
            b, height, width, c = h.shape
            rows, columns = height // self.size, width // self.size
            h = h[:, : rows * self.size, : columns * self.size]
            tiles = h.reshape(b, rows, self.size, columns, self.size, c)
            if self.kind == "softmax":
                return jnp.sum(jax.nn.softmax(tiles, axis=(2, 4)) * tiles, axis=(2, 4))
            return tiles.max((2, 4)) if self.kind == "max" else tiles.mean((2, 4))
        window, strides = (1, self.size, self.size, 1), (1, self.stride, self.stride, 1)
        if self.kind == "max":
            return jax.lax.reduce_window(h, -jnp.inf, jax.lax.max, window, strides, "VALID")
        return jax.lax.reduce_window(h, 0.0, jax.lax.add, window, strides, "VALID") / self.size**2


class GlobalMean(Stage):
    """The mean over all pixels, (batch, height, width, channels) -> (batch, channels)."""

    def __call__(self, h: Float[Array, "batch height width channels"]) -> Float[Array, "batch channels"]:
        """Return the mean over pixels."""
        return h.mean((1, 2))


def _activation(name: str | Activation, argument: str = "activation") -> Activation:
    # Inside a class body the name `activation` is the field, so the lookup has a second name.
    return activation(name, argument=argument)


def _is_site(node: object) -> bool:
    return isinstance(node, Site)


def sites(model: PyTree) -> list[Site]:
    """Every site of a model, in the order in which activity passes them."""
    return [node for node in jax.tree.leaves(model, is_leaf=_is_site) if _is_site(node)]


def affines(model: PyTree) -> list[Affine]:
    """Every dense and convolutional site of a model, in the order in which activity passes them."""
    return [site for site in sites(model) if isinstance(site, Affine)]


def affines_above_first(model: PyTree) -> list[Affine]:
    """Every dense and convolutional site but a first one: those through which an error has to come down.

    Below the first site there is only x, and nothing learns from an error there.
    """
    return [site for site in sites(model)[1:] if isinstance(site, Affine)]


def has_hard_units(model: PyTree) -> bool:
    """Whether there is a sign or a step anywhere in a model, in a layer or as a stage of its own.

    Their derivative is zero, so no error passes them.
    """

    def hard(node: object) -> bool:
        return getattr(node, "activation", None) in HARD

    return any(map(hard, jax.tree.leaves(model, is_leaf=hard)))


def replace_sites(model: Model, new: Sequence[PyTree]) -> Model:
    """Return `model` with its sites, in the order of `sites`, replaced by `new`."""
    nodes, treedef = jax.tree.flatten(model, is_leaf=_is_site)
    fresh = iter(new)
    return jax.tree.unflatten(treedef, [next(fresh) if _is_site(node) else node for node in nodes])


def wire(model: Model, wirings: Sequence[Wiring | None]) -> Model:
    """Return `model` with one wiring, or None, for each of its sites, in the order of `sites`."""
    wired = [
        eqx.tree_at(lambda s: s.wiring, site, wiring, is_leaf=lambda leaf: leaf is None)
        for site, wiring in zip(sites(model), wirings, strict=True)
    ]
    return replace_sites(model, wired)


def local_update(
    site: Site, h: Float[Array, "batch ..."], error: Float[Array, "batch ..."]
) -> tuple[Float[Array, "..."], Float[Array, "..."] | None]:
    """The layer-local update: how the site's weight and bias move, given an error at its pre-activation.

    For a dense site this is `(h.T @ error, error.sum(0))`: one matrix product for the whole batch.

    Args:
        site: a site.
        h: what entered the site.
        error: dC/da or a rule's substitute for it, one row an example. The update is a sum over
            examples; pass errors of the batch's *mean* cost to get a mean.

    Returns:
        The updates of the weight and of the bias (None where there is none).
    """
    _, pull = jax.vjp(lambda weight, bias: site.map(h, weight, bias), site.weight, site.bias)
    return pull(error)


def assemble(model: Model, updates: Sequence[tuple[Float[Array, "..."], Float[Array, "..."] | None]]) -> Model:
    """Lay one (weight, bias) update for each site out in the shape of the model's parameters.

    Parameters outside every site get zeros: a rule that asks the sites alone has nothing to say of them.
    """
    blank = jax.tree.map(jnp.zeros_like, eqx.filter(model, eqx.is_inexact_array))
    moved = [
        eqx.tree_at(lambda s: (s.weight, s.bias), site, update, is_leaf=lambda leaf: leaf is None)
        for site, update in zip(sites(blank), updates, strict=True)
    ]
    return replace_sites(blank, moved)
