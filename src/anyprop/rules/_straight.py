"""Hard units that are passed straight through: what the straight-through estimator and the codes' descent share.

    h = f(a) to the last digit,   dh/da := slope(a)

The slope is 1 unless another is asked for.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..nets import HARD, Activate, Activation, Residual, Site, Wiring, wire

Slope = Callable[[Array], Array]
Part = TypeVar("Part", bound=PyTree)


class Straight(NamedTuple):
    """A hard activation with a pretended slope."""

    activation: Activation
    slope: Slope = jnp.ones_like

    def __call__(self, a: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return f(a), whose derivative with respect to a is the slope."""
        return pretend(self.activation(a), a, self.slope)


def pretend(h: Float[Array, "..."], a: Float[Array, "..."], slope: Slope) -> Float[Array, "..."]:
    """Return `h` to the last digit, with the derivative slope(a) with respect to a."""
    constant = jax.lax.stop_gradient
    # a - constant(a) is exactly zero.
    return constant(h) + constant(slope(a)) * (a - constant(a))


def straight(activation: Activation, slope: Slope = jnp.ones_like) -> Activation:
    """Return the activation, straight through if it is hard."""
    return Straight(activation, slope) if activation in HARD else activation


class StraightUnit(Wiring):
    """A layer's units, hard or sampled, with a pretended slope.

    Args:
        slope: a -> dh/da.
        noise: uniform random numbers, one a unit, to sample h = 1[u < f(a)]; None for h = f(a).
    """

    slope: Slope = eqx.field(static=True)
    noise: Float[Array, "batch ..."] | None = None

    def __call__(self, site: Site, h: Float[Array, "batch ..."]) -> tuple[Array, Array]:
        """Return a and the hard h, whose derivative with respect to a is the slope."""
        a = site.drive(h)
        hard = site.activation(a) if self.noise is None else (self.noise < site.activation(a)).astype(a.dtype)
        return a, pretend(hard, a, self.slope)


def straighten(part: Part, slope: Slope = jnp.ones_like) -> Part:
    """Return a part of a chain with every hard activation passed straight through.

    It may be a layer's own, unless that layer is wired already, a stage, or what a residual block ends in.
    """

    def passed(node: object) -> object:
        if isinstance(node, Site) and node.wiring is None and node.activation in HARD:
            (node,) = wire([node], [StraightUnit(slope)])
        if isinstance(node, Activate):
            return Activate(straight(node.activation, slope))
        if isinstance(node, Residual):
            body, shortcut = straighten((node.body, node.shortcut), slope)
            return Residual(body, shortcut=shortcut, activation=straight(node.activation, slope))
        return node

    return jax.tree.map(passed, part, is_leaf=lambda node: isinstance(node, Activate | Residual | Site))
