"""The general Boltzmann machine: every unit is joined to every other.

    E = -sum_{i<j} W_ij s_i s_j - sum_i b_i s_i,    p(s_i = 1 | all others) = sigmoid(sum_j W_ij s_j + b_i)

No two units are independent given the others, so a sweep of Gibbs sampling draws them one after the other.

Source: Ackley, Hinton and Sejnowski 1985.
"""

from collections.abc import Collection
from typing import Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from .._checks import choose, count, positive
from ._boltzmann_machine import BoltzmannMachine, Groups
from ._relaxation import GradientFlow, Relaxation
from ._units import Binary, OneOf, Spin, Units

Kind = Literal["binary", "spin"]
KINDS: dict[str, Units] = {"binary": Binary(), "spin": Spin()}


class GeneralBoltzmann(BoltzmannMachine):
    """A fully connected Boltzmann machine, with visible units, hidden ones and perhaps a label.

    Use it for what layers cannot express, and for what the field began with. Its sweeps take as many steps as it
    has units: `Boltzmann` is far faster.

    Args:
        visible: number of visible units, at least 1.
        hidden: number of hidden units, 0 or more.
        classes: number of classes of the label; at 0 there is none.
        kind: `"binary"` units are 0 or 1, `"spin"` ones -1 or 1. The label is always a choice of one.
        scale: standard deviation of the weights at the start, above 0; the biases start at zero.
        relaxation: how mean field settles; default: 50 steps of a gradient flow, because units that act on each
            other may not jump to their means together.
        key: random key for the weights.

    Raises:
        ValueError: a number is out of its range, or a name is unknown.

    References:
        Ackley, Hinton & Sejnowski. A learning algorithm for Boltzmann machines. Cognitive Science, 1985.
    """

    weight: Float[Array, " pairs"]
    bias: Float[Array, " units"]
    widths: tuple[int, ...] = eqx.field(static=True)
    labels: bool = eqx.field(static=True)
    kind: Kind = eqx.field(static=True)
    relaxation: Relaxation

    def __init__(
        self,
        visible: int,
        hidden: int,
        classes: int = 0,
        *,
        kind: Kind = "binary",
        scale: float = 0.1,
        relaxation: Relaxation | None = None,
        key: Key[Array, ""],
    ):
        count("visible", visible)
        count("hidden", hidden, least=0)
        count("classes", classes, least=0)
        positive("scale", scale)
        choose("kind", kind, get_args(Kind))
        self.widths = tuple(size for size in (visible, hidden, classes) if size)
        self.labels, self.kind = classes > 0, kind
        self.relaxation = GradientFlow(50) if relaxation is None else relaxation
        self.weight = scale * jax.random.normal(key, (len(self.pairs[0]),))
        self.bias = jnp.zeros(sum(self.sizes))

    @property
    def sizes(self) -> tuple[int, ...]:
        """The groups that there are: visible, hidden, label."""
        return self.widths

    @property
    def units(self) -> tuple[Units, ...]:
        """Units of one kind, and the label."""
        same = len(self.sizes) - self.labels
        return (*[KINDS[self.kind]] * same, *[OneOf()] * self.labels)

    @property
    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """The units that each weight joins; two classes are never on together, so no weight joins them."""
        first, second = np.triu_indices(sum(self.sizes), 1)
        joined = first < sum(self.sizes) - self.labels * self.sizes[-1]
        return first[joined], second[joined]

    @property
    def matrix(self) -> Float[Array, "units units"]:
        """W, symmetric and without a diagonal."""
        upper = jnp.zeros((len(self.bias), len(self.bias)), self.weight.dtype).at[self.pairs].set(self.weight)
        return upper + upper.T

    def energy(self, state: Groups) -> Float[Array, " batch"]:
        """Return -1/2 <s, W s> - <b, s> of each example."""
        s = jnp.concatenate(state, axis=1)
        return -0.5 * jnp.sum(s * (s @ self.matrix), axis=1) - s @ self.bias

    def sweep(self, state: Groups, free: Collection[int], key: Key[Array, ""]) -> Groups:
        """Draw the free units, one after the other; the label is one of them."""
        ends = np.cumsum(self.sizes)
        label = len(self.sizes) - 1 if self.labels else None
        singles = np.concatenate([np.arange(ends[k] - self.sizes[k], ends[k]) for k in free if k != label] or [[]])
        weight, kind = self.matrix, KINDS[self.kind]
        key_singles, key_label = jax.random.split(key)

        def visit(s: Array, unit: tuple[Array, Array]) -> tuple[Array, None]:
            i, key = unit
            field = s @ weight[i] + self.bias[i]
            return s.at[:, i].set(kind.sample(field, key)), None

        keys = jax.random.split(key_singles, len(singles))
        s, _ = jax.lax.scan(visit, jnp.concatenate(state, axis=1), (jnp.asarray(singles, int), keys))
        state = jnp.split(s, ends[:-1], axis=1)
        if label in free:
            state[-1] = OneOf().sample(self.fields(state)[-1], key_label)
        return state

    def isolated(self, bias: Float[Array, " visible"] | None = None) -> "GeneralBoltzmann":
        """Return the machine without its connections: W = 0, and b = 0 but for the visible units."""
        visible = self.bias[: self.sizes[0]] if bias is None else bias
        biases = jnp.zeros_like(self.bias).at[: self.sizes[0]].set(visible)
        return eqx.tree_at(lambda m: (m.weight, m.bias), self, (jnp.zeros_like(self.weight), biases))
