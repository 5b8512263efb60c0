"""Nonlinear resistive networks: circuits that answer by letting currents flow.

A layer of nodes is joined to the layer below by resistors of conductance g_ij >= 0. Their currents balance at every
node, which is where P, half the power that they dissipate, is least:

    P = sum_ij 1/2 g_ij (v_i - v_j)^2,      v_k in the range that its diode leaves it

    v_k = clip(sum_j g_jk v_j / sum_j g_jk)             the lowest point over one node, the others held
    dP/dg_ij = 1/2 (v_i - v_j)^2                        seen at the resistor itself

A diode holds each node of the first half of a hidden layer at 0 or above, each of the other half at 0 or below. Sources
clamp the inputs, each twice, at +-`gain` x, because conductances cannot be negative. In every layer above, voltages
come with both signs by the diodes. A pair of sources at 1 and -1 serves each layer as its bias. The last layer has no
diodes: its voltages are the answer.

Voltages fall from layer to layer, since a node averages over those it is joined to. Amplifiers make up for it: they
show a hidden node's voltage to the layer above A times as large, and pass back 1/A of the current that it draws. That,
too, is the lowest point of a sum of powers, in which those of lower layers weigh more:

    P = sum_k A^(2 (L - k)) sum_ij 1/2 g_ij (A v_i - v_j)^2,      i in layer k - 1, j in layer k = 1 ... L

An answer may also be the difference of two nodes' voltages: it has both signs, whichever way the two lie.

A nudge of beta C is a current -beta dC/do into each output node o. For the squared error that is a resistor beta to a
source at y, and so o = (sum_j g_jo v_j + beta y) / (sum_j g_jo + beta).

Sources: Kendall, Pantone, Manickavasagam, Bengio and Scellier 2020; Scellier 2024 for the exact descent.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from .._checks import count, positive
from ._energy import Energy, Nudge
from ._relaxation import Dynamics, Relaxation, Sweeps

Voltages = Float[Array, "batch _nodes"]


class Resistive(Energy):
    """A layered network of resistors and ideal diodes, which answers with the voltages of its last layer.

    The state is a list of the voltages of each hidden layer and of the output nodes, and starts at zero. Its
    parameters are conductances: a matrix for each layer, one row for each node or source below, the last two rows for
    the sources at 1 and -1. An optimizer may take them below zero, where no circuit can follow:
    `write_conductances` prevents it.

        rule = ap.EquilibriumPropagation(1.0, relaxation="sweeps", free_steps=4, nudged_steps=4)
        optimizer = optax.chain(optax.sgd(0.006), energies.write_conductances())

    Voltages fall from layer to layer: a large `gain` makes up for that, or amplifiers between layers do.

    Args:
        sizes: number of inputs, of nodes in each hidden layer, and of outputs.
        gain: the volts that an input of 1 stands for.
        amplification: A, by which amplifiers between layers multiply voltages on the way up and divide currents on the
            way down, above 0; at 1 there are none. Inputs and biases come from sources, which need none.
        paired: whether each output is the difference of two nodes rather than the voltage of one: the first half of
            the last layer less the second.
        relaxation: how it settles when it is called. Layer after layer, each at its exact minimum, takes a few
            sweeps. In a gradient flow every node has the time constant 1: a capacitance that is the sum of its
            conductances. A nudge of -beta must leave its output nodes a positive sum: above squared error, beta has
            to be below the sum of each one's conductances, and with `paired` below half of it.
        key: random key. Conductances are drawn uniformly within 1 / sqrt(nodes below) on either side of 0, and those
            below 0 left out, so that half of all pairs start unconnected, and all biases.

    Raises:
        ValueError: there are fewer than two sizes, a size is not a positive integer, or `gain` or `amplification` is
            not above 0.

    References:
        Kendall, Pantone, Manickavasagam, Bengio & Scellier. Training end-to-end analog neural networks with
        equilibrium propagation. arXiv:2006.01981, 2020.
        Scellier. A fast algorithm to simulate nonlinear resistive networks. ICML 2024.
    """

    conductances: list[Float[Array, "_below _nodes"]]
    gain: float = eqx.field(static=True)
    amplification: float = eqx.field(static=True)
    paired: bool = eqx.field(static=True)
    relaxation: Relaxation

    def __init__(
        self,
        *sizes: int,
        gain: float = 1.0,
        amplification: float = 1.0,
        paired: bool = False,
        relaxation: Relaxation | None = None,
        key: Key[Array, ""],
    ):
        if len(sizes) < 2:
            raise ValueError(f"sizes={sizes} must name at least the inputs and the outputs, such as 784, 100, 10")
        for size in sizes:
            count("sizes", size)
        positive("gain", gain)
        positive("amplification", amplification)
        nodes = [2 * sizes[0], *sizes[1:-1], 2 * sizes[-1] if paired else sizes[-1]]
        keys = jax.random.split(key, len(nodes) - 1)
        self.conductances = [_draw(k, n, m) for k, n, m in zip(keys, nodes[:-1], nodes[1:], strict=True)]
        self.gain = gain
        self.amplification = amplification
        self.paired = paired
        self.relaxation = Sweeps() if relaxation is None else relaxation

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, without the batch axis."""
        return ((len(self.conductances[0]) - 2) // 2,)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of one prediction, without the batch axis."""
        nodes = self.conductances[-1].shape[1]
        return (nodes // 2 if self.paired else nodes,)

    def start(self, x: Float[Array, "batch inputs"]) -> list[Voltages]:
        """Return zero volts at every node."""
        return [jnp.zeros((len(x), g.shape[1]), g.dtype) for g in self.conductances]

    def output(self, state: list[Voltages]) -> Voltages:
        """Return the voltages of the last layer, or the differences of its pairs."""
        if not self.paired:
            return state[-1]
        plus, minus = jnp.split(state[-1], 2, axis=1)
        return plus - minus

    def project(self, state: list[Voltages]) -> list[Voltages]:
        """Return the voltages that the diodes leave: half of each hidden layer above 0, the other half below."""
        *hidden, output = state
        return [jnp.where(_upward(v), jnp.maximum(v, 0.0), jnp.minimum(v, 0.0)) for v in hidden] + [output]

    def energy(self, state: list[Voltages], x: Float[Array, "batch inputs"]) -> Float[Array, " batch"]:
        """Return P of each example; without amplifiers, it is half the power that the resistors dissipate."""
        powers = jnp.zeros(len(x))
        for weight, g, below, v in zip(self._weights, self.conductances, self._below(state, x), state, strict=True):
            # The square, multiplied out: no array of (batch, below, nodes).
            power = 0.5 * (below**2 @ g.sum(1) + v**2 @ g.sum(0)) - jnp.sum(below @ g * v, axis=1)
            powers += weight * power
        return powers

    def dynamics(self, x: Float[Array, "batch inputs"], nudge: Nudge | None = None) -> Dynamics:
        """Return where every node rests, given the others, and the flow there with time constant 1.

        Args:
            x: the clamped input.
            nudge: what is added to the energy; default: nothing. A node's answer is exact to one that is a sum of
                quadratic functions of single output nodes; to any other it is a step of Newton's method.
        """
        push = super().dynamics(x, nudge).velocity
        totals = self._totals()

        def answer(state: list[Voltages]) -> list[Voltages]:
            curvatures = [*totals[:-1], totals[-1] + (0.0 if nudge is None else _bend(nudge, state))]
            return self.project([v + p / c for v, p, c in zip(state, push(state), curvatures, strict=True)])

        def velocity(state: list[Voltages]) -> list[Voltages]:
            return jax.tree.map(jnp.subtract, answer(state), state)

        return Dynamics(velocity, self.project, answer)

    def _below(self, state: list[Voltages], x: Float[Array, "batch inputs"]) -> list[Voltages]:
        """The voltages that each layer's resistors come from."""
        bias = jnp.broadcast_to(jnp.asarray([1.0, -1.0], x.dtype), (len(x), 2))
        amplified = [self.amplification * v for v in state[:-1]]
        layers = [jnp.concatenate([self.gain * x, -self.gain * x], axis=1), *amplified]
        return [jnp.concatenate([layer, bias], axis=1) for layer in layers]

    @property
    def _weights(self) -> list[float]:
        """What each layer's power counts for in P, A^(2 (L - k))."""
        layers = len(self.conductances)
        return [self.amplification ** (2 * (layers - k)) for k in range(1, layers + 1)]

    def _totals(self) -> list[Float[Array, " _nodes"]]:
        """The curvature of P along each node; above 0, so that a node without resistors stays where it is."""
        layers = list(zip(self._weights, self.conductances, strict=True))
        down = [weight * jnp.sum(g, axis=0) + jnp.finfo(g.dtype).tiny for weight, g in layers]
        up = [weight * self.amplification**2 * jnp.sum(g[:-2], axis=1) for weight, g in layers[1:]]
        return [d + u for d, u in zip(down, [*up, 0.0], strict=True)]


def _draw(key: Key[Array, ""], below: int, nodes: int) -> Float[Array, "sources nodes"]:
    """A layer's conductances: those of the nodes below at random, those of its two biases 0."""
    bound = below**-0.5
    drawn = jax.random.uniform(key, (below, nodes), minval=-bound, maxval=bound)
    return jnp.pad(jnp.maximum(drawn, 0.0), ((0, 2), (0, 0)))


def _upward(v: Voltages) -> Bool[Array, " nodes"]:
    """Which nodes of a hidden layer have diodes that hold them at 0 or above."""
    nodes = v.shape[1]
    return jnp.arange(nodes) < nodes // 2


def _bend(nudge: Nudge, state: list[Voltages]) -> Voltages:
    """The second derivative of the nudge with respect to each output node."""
    *hidden, output = state

    def slope(output: Voltages) -> Voltages:
        return jax.grad(lambda output: jnp.sum(nudge([*hidden, output])))(output)

    def along(node: Float[Array, " nodes"]) -> Float[Array, " batch"]:
        _, change = jax.jvp(slope, (output,), (jnp.broadcast_to(node, output.shape),))
        return change @ node

    return jax.vmap(along, out_axes=1)(jnp.eye(output.shape[1], dtype=output.dtype))
