"""Layered Boltzmann machines, as a view of a chain.

    E = -<b_0, s_0> - sum_k <s_k, W_k s_{k-1} + b_k>,    s_0 = x,   k = 1 ... L

Given the layers next to it, the units of a layer are independent, so a sweep of Gibbs sampling draws all odd layers at
once, then all even ones. And the odd layers can be summed over in closed form:

    F = -log sum_{odd layers} exp(-E) = -sum_{k even} <b_k, s_k> - sum_{k odd} log_sum(a_k)
    a_k = W_k s_{k-1} + b_k + W_{k+1}^T s_{k+1}          log_sum(a) = log sum_s exp(<s, a>), softplus for binary units

Source: Ackley, Hinton and Sejnowski 1985; Smolensky 1986 and Hinton 2002 for one hidden layer (restricted Boltzmann
machines); Salakhutdinov and Hinton 2009 for more (deep ones); Larochelle and Bengio 2008 for the exact p(y|x) of one
hidden layer.
"""

from collections.abc import Collection

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ..nets import ACTIVATIONS, Chain, Dense
from ._boltzmann_machine import BoltzmannMachine, Groups
from ._relaxation import Relaxation, Sweeps
from ._units import Binary, OneOf, Spin, Units

KINDS: dict[object, Units] = {ACTIVATIONS["sigmoid"]: Binary(), ACTIVATIONS["tanh"]: Spin()}
"""Units whose mean, given their field, is an activation."""


class Boltzmann(BoltzmannMachine):
    """A chain of dense layers read as a layered Boltzmann machine, whose weights act in both directions.

    The activations of the chain say what the units are: `"sigmoid"` ones are 0 or 1, `"tanh"` ones -1 or 1, and the
    visible units as the hidden ones. A label is a layer without activation.

    | machine | chain |
    |---|---|
    | restricted (RBM) on x | `mlp(784, 500, output="sigmoid", key=key)` |
    | deep (DBM) on x | `mlp(784, 500, 1000, activation="sigmoid", output="sigmoid", key=key)` |
    | restricted on x and y | `mlp(784, 500, 10, activation="sigmoid", key=key)`, `labels=True` |
    | deep on x and y | `mlp(784, 500, 500, 10, activation="sigmoid", key=key)`, `labels=True` |

    With one hidden layer the logits of the classes are exact, log p(y|x) up to a constant. With more they are those of
    mean field. Visible intensities between 0 and 1 are taken as they are, as means of binary units.

    Args:
        chain: dense layers.
        labels: whether the last layer is a label.
        bias: whether the visible units have a bias b_0, which starts at zero; or the array to start from. To learn
            p(y|x) it is of no use.
        relaxation: how mean field settles.

    Raises:
        TypeError: a stage is no dense layer, or has an activation that is no unit's mean.
        ValueError: `bias` has not one entry for each visible unit.

    References:
        Ackley, Hinton & Sejnowski. A learning algorithm for Boltzmann machines. Cognitive Science, 1985.
        Salakhutdinov & Hinton. Deep Boltzmann machines. AISTATS, 2009.
    """

    chain: Chain
    bias: Float[Array, " visible"] | None
    labels: bool = eqx.field(static=True)
    relaxation: Relaxation

    def __init__(
        self,
        chain: Chain,
        *,
        labels: bool = False,
        bias: Float[Array, " visible"] | bool = True,
        relaxation: Relaxation | None = None,
    ):
        self.chain, self.labels = chain, labels
        self.relaxation = Sweeps(10) if relaxation is None else relaxation
        dtype = _check(chain, labels)
        self.bias = (jnp.zeros(chain.input_shape, dtype) if bias else None) if isinstance(bias, bool) else bias
        if self.bias is not None and self.bias.shape != chain.input_shape:
            raise ValueError(f"bias has shape {self.bias.shape}; pass one entry for each of {chain.input_shape} inputs")

    @property
    def units(self) -> tuple[Units, ...]:
        """What the activations say; the visible units are of the first hidden layer's kind."""
        kinds = tuple(KINDS.get(layer.activation, OneOf()) for layer in self.layers)
        return (Binary() if isinstance(kinds[0], OneOf) else kinds[0], *kinds)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The widths of the chain."""
        return (*self.chain.input_shape, *(layer.weight.shape[1] for layer in self.layers))

    @property
    def odd(self) -> tuple[int, ...]:
        """The layers that are independent of each other, given the even ones."""
        return self.groups[1::2]

    @property
    def even(self) -> tuple[int, ...]:
        """The layers that are independent of each other, given the odd ones; the visible one is the first."""
        return self.groups[::2]

    def energy(self, state: Groups) -> Float[Array, " batch"]:
        """Return -<b_0, s_0> - sum_k <s_k, W_k s_{k-1} + b_k> of each example."""
        drives = [layer.drive(s) for layer, s in zip(self.layers, state, strict=False)]
        energy = jnp.zeros(len(state[0]), state[0].dtype)
        for s, a in zip(state[1:], drives, strict=True):
            energy -= jnp.sum(s * a, axis=1)
        return energy if self.bias is None else energy - state[0] @ self.bias

    def free_energy(self, state: Groups) -> Float[Array, " batch"]:
        """Return -log sum exp(-E) over all states of the odd layers, whatever they are in `state`."""
        state = [jnp.zeros_like(s) if k in self.odd else s for k, s in enumerate(state)]
        fields = self.fields(state)
        return self.energy(state) - sum(self.units[k].log_sum(fields[k]) for k in self.odd)

    def sweep(self, state: Groups, free: Collection[int], key: Key[Array, ""]) -> Groups:
        """Draw the free layers, first the odd ones, then the even ones."""
        keys = jax.random.split(key, len(state))
        for layers in (self.odd, self.even):
            fields = self.fields(state)
            state = [
                self.units[k].sample(fields[k], keys[k]) if k in layers and k in free else s
                for k, s in enumerate(state)
            ]
        return state

    def isolated(self, bias: Float[Array, " visible"] | None = None) -> "Boltzmann":
        """Return the machine without its connections: W_k = 0 and b_k = 0, but for b_0."""
        alone = eqx.tree_at(lambda m: m.chain, self, jax.tree.map(jnp.zeros_like, self.chain))
        return alone if bias is None or self.bias is None else eqx.tree_at(lambda m: m.bias, alone, bias)

    def expect(self, state: Groups) -> Groups:
        """Return the state with the odd layers at their means, given the even ones."""
        fields = self.fields(state)
        return [self.units[k].mean(fields[k]) if k in self.odd else s for k, s in enumerate(state)]

    def __call__(self, x: Float[Array, "batch visible"]) -> Float[Array, "batch answers"]:
        """Return the logits of the classes, or without a label those of the visible units."""
        state = self.start(len(x), x=x)
        if len(self.hidden) > 1:
            return super().__call__(x)
        if not (self.hidden and self.labels):
            return self.answer(self.expect(state))
        # b_0 is the same for all classes: left out, its derivative is zero exactly.
        machine = eqx.tree_at(lambda m: m.bias, self, None, is_leaf=lambda leaf: leaf is None)

        def score(y: Float[Array, " classes"]) -> Float[Array, " batch"]:
            return -machine.free_energy([*state[:-1], jnp.broadcast_to(y, state[-1].shape)])

        return jax.vmap(score, out_axes=1)(jnp.eye(self.sizes[-1], dtype=x.dtype))

    @property
    def layers(self) -> list[Dense]:
        """The layers of the chain."""
        return [layer for layer in self.chain.stages if isinstance(layer, Dense)]


def _check(chain: Chain, labels: bool) -> jnp.dtype:
    """Refuse what is no machine; return the precision of the weights."""
    kinds = set()
    for i, stage in enumerate(chain.stages):
        if not isinstance(stage, Dense):
            raise TypeError(
                f"Boltzmann has no units for a {type(stage).__name__} (stages[{i}]); pass a chain of dense layers, "
                "such as ap.nets.mlp(784, 500, 10, activation='sigmoid', key=key)"
            )
        if labels and i == len(chain.stages) - 1:
            if stage.activation is not ACTIVATIONS["identity"]:
                raise TypeError(
                    "the label of a Boltzmann machine is a layer without activation; pass output='identity'"
                )
        elif stage.activation not in KINDS:
            option = "output" if i and i == len(chain.stages) - 1 else "activation"
            raise TypeError(
                f"the activation of stages[{i}] is no mean of a Boltzmann machine's units; pass {option}='sigmoid' for "
                f"units that are 0 or 1, or {option}='tanh' for -1 or 1" + ("" if labels else ", or labels=True")
            )
        else:
            kinds.add(stage.activation)
    if len(kinds) > 1:
        raise TypeError("the units of a Boltzmann machine are of one kind; pass sigmoids only, or tanh only")
    return jnp.result_type(*jax.tree.leaves(eqx.filter(chain, eqx.is_inexact_array)))
