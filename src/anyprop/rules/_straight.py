"""Hard units that are passed straight through: what the straight-through estimator and the codes' descent share.

    h = f(a) to the last digit,   dh/da := slope(a)

The slope is 1 unless another is asked for.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..nets import HARD, Activate, Activation, Residual

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


def straight_stages(part: Part, slope: Slope = jnp.ones_like) -> Part:
    """Return a part of a chain with every hard activation that is no layer's own passed straight through.

    It may be a stage, or what a residual block ends in.
    """

    def passed(node: object) -> object:
        if isinstance(node, Activate):
            return Activate(straight(node.activation, slope))
        if isinstance(node, Residual):
            body, shortcut = straight_stages((node.body, node.shortcut), slope)
            return Residual(body, shortcut=shortcut, activation=straight(node.activation, slope))
        return node

    return jax.tree.map(passed, part, is_leaf=lambda node: isinstance(node, Activate | Residual))
