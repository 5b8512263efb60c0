"""A chain read as a tower of conditional Gaussians: the energy of predictive coding.

    E = sum_k 1/(2 Sigma_k) ||e_k||^2,   e_k = s_k - c_k,   c_k = W_k rho(s_{k-1}) + b_k,   c_1 = W_1 x + b_1

which is, but for a constant, -log p(s_1 | x) p(s_2 | s_1) ... p(s_L | s_{L-1}), each a Gaussian of variance Sigma_k
around what the layer below predicts. s_k is a layer's pre-activation; c_k are the chain's `links`, so pooling,
flattening and normalisation have their place, and the output layer's nonlinearity, if any, belongs to c_L. With
nothing acting on it but the input, E is 0 at s_k = c_k: one forward pass, and no settling.

    -dE/ds_k = -e_k / Sigma_k + rho'(s_k) W_{k+1}^T e_{k+1} / Sigma_{k+1},      -dE/dW_k = e_k rho(s_{k-1})^T / Sigma_k

Source: Whittington and Bogacz 2017; Bengio 2017 for its place among the energies of equilibrium propagation. Papers
that write E without the 1/2 have half the nudge for the same update.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from .._checks import positive
from ..nets import Chain, affines, for_loops, has_hard_units, links
from ._backtracking import BacktrackingFlow
from ._energy import Energy, Nudge
from ._reading import Reading
from ._relaxation import Relaxation, Settled

Activity = Float[Array, "batch ..."]


class Feedforward(Reading, Energy):
    """A chain read as predictive coding reads it: each layer is predicted by the one below, and errors are states.

    The state is a list of one array for each link of the chain: each dense or convolutional layer, or residual block
    as a whole. It starts where it rests, at a forward pass, which is also how the system answers: the prediction is
    s_L. Nudged, it settles from there.

    Args:
        chain: the network, of any stages whose nonlinearities have a derivative.
        variances: Sigma_k, how far a layer may lie from what predicts it, in squared units of its pre-activation: one
            number above 0 for all layers, or one for each, first to last.
        relaxation: how it settles under a nudge.

    Raises:
        TypeError: the chain has no weights, or a nonlinearity whose derivative is zero.
        ValueError: a variance is not above 0, or their number is not that of the layers.

    References:
        Whittington & Bogacz. An approximation of the error backpropagation algorithm in a predictive coding network
        with local Hebbian synaptic plasticity. Neural Computation, 2017.
    """

    chain: Chain
    variances: float | tuple[float, ...] = eqx.field(default=1.0, static=True, kw_only=True)
    relaxation: Relaxation = eqx.field(default_factory=lambda: BacktrackingFlow(20, 0.1), kw_only=True)

    def __check_init__(self):
        """Refuse what no error passes, and variances that fit no layer."""
        if not affines(self.chain):
            raise TypeError("Feedforward needs a chain with at least one dense or convolutional layer")
        if has_hard_units(self.chain):
            raise TypeError(
                "Feedforward cannot pass an error through a sign or a step, whose derivative is zero; pass "
                "activation='tanh' or 'hard-sigmoid'"
            )
        layers = len(links(self.chain))
        if isinstance(self.variances, tuple) and len(self.variances) != layers:
            raise ValueError(f"variances has {len(self.variances)} numbers for {layers} layers; pass one for each")
        for variance in self.sigma:
            positive("variances", variance)

    @property
    def sigma(self) -> tuple[float, ...]:
        """Sigma_k of each layer."""
        return self.variances if isinstance(self.variances, tuple) else (self.variances,) * len(links(self.chain))

    def predictions(self, state: PyTree, x: Activity) -> list[Activity]:
        """Return c_1 ... c_L, what is predicted of each layer by the one below.

        Args:
            state: s_1 ... s_L, or s_1 ... s_{L-1}, which say as much of it.
            x: the input.
        """
        return [link(below) for link, below in zip(links(for_loops(self.chain)), [x, *state], strict=False)]

    def energy(self, state: PyTree, x: Activity) -> Float[Array, " batch"]:
        """Return sum_k ||s_k - c_k||^2 / (2 Sigma_k) of each example, over the layers that have a state.

        Args:
            state: s_1 ... s_L, or s_1 ... s_{L-1} where something else stands in for the last layer's term.
            x: the input.
        """
        energy = jnp.zeros(len(x))
        for s, c, sigma in zip(state, self.predictions(state, x), self.sigma, strict=False):
            energy += jnp.sum((s - c) ** 2, axis=tuple(range(1, s.ndim))) / (2 * sigma)
        return energy

    def start(self, x: Activity) -> list[Activity]:
        """Return the state at rest: a forward pass."""
        state: list[Activity] = []
        for link in links(self.chain):
            state.append(link(state[-1] if state else x))
        return state

    def output(self, state: PyTree) -> Activity:
        """Return s_L."""
        return state[-1]

    def settle(
        self,
        x: Activity,
        start: PyTree | None = None,
        *,
        nudge: Nudge | None = None,
        relaxation: Relaxation | None = None,
        key: Key[Array, ""] | None = None,
    ) -> Settled:
        """Let the system settle; without a nudge, that is a forward pass and takes no steps.

        Args:
            x: the clamped input.
            start: where to start from; default: the forward pass. Of no effect without a nudge.
            nudge: what is added to the energy; default: nothing.
            relaxation: how to settle; default: `self.relaxation`. Of no effect without a nudge.
            key: random key, for relaxations with noise.
        """
        start = self.start(x) if nudge is None or start is None else start
        if nudge is None or not start:
            return Settled(start, jnp.zeros(len(x), int), jnp.zeros(len(x)), jnp.ones(len(x), bool))
        return super().settle(x, start, nudge=nudge, relaxation=relaxation, key=key)
