"""The Hopfield energy of a layered network, as a view of a chain.

    E = sum_k 1/2 ||s_k||^2 - <rho(s_k), W_k rho(s_{k-1}) + b_k>,    rho(s_0) = x,   k = 1 ... L

so that -dE/ds_k = rho'(s_k) (W_k rho(s_{k-1}) + W_{k+1}^T rho(s_{k+1}) + b_k) - s_k: every weight is used in both
directions. Here s_k is the state of the layer's units, and W_k any affine layer of the chain. Pooling and flattening
between two layers act on the rates and belong to W_k.

Units of bounded range: a hard sigmoid's state is kept in [0, 1], and a rectifier's above 0. In there rho(s) = s, and
rho'(s) = 1 with both ends included, so that a unit leaves the end of its range when it is driven inwards. Given all the
others, such a unit rests where its drive is, or at the end of its range that is nearest to it. A half-hard sigmoid's
state is kept in [0, 2]. In there rho(s) = s / 2 and rho'(s) = 1/2, so that it rests at half its drive, and its rate is
a quarter of it.

Source: Scellier and Bengio 2017.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..nets import ACTIVATIONS, HARD, Activation, Chain
from ._energy import Nudge
from ._layered import RANGES, Activity, Layered, inner, primitive
from ._relaxation import Dynamics, GradientFlow, Relaxation

HALF = ACTIVATIONS["half-hard-sigmoid"]

BOUNDS: dict[Activation, tuple[float, float]] = {**RANGES, HALF: (0.0, 2.0)}
"""Activations that are straight lines in a range and constant outside of it, where no unit rests; and that range."""


class Hopfield(Layered):
    """A chain read as a layered Hopfield network, which settles with the weights used in both directions.

    The state is a list of one array for each dense or convolutional layer, and starts at zero. The prediction
    is rho(s_L).

    Args:
        chain: dense and convolutional layers, the last stage one of them, with pooling and flattening between
            them; hard sigmoids are what equilibrium propagation was published with. Half-hard ones, published for
            `Convergent` networks, answer a drive with half the rate that they have there. A residual block's shortcut
            joins the drive of its last layer, which then has the block's activation.
        relaxation: how it settles when it is called. `FixedPoint` and `Sweeps` need hard sigmoids or rectifiers.
            Where a maximum is pooled, how a unit is driven depends on whether it is the largest itself, and under
            softmax pooling on its rate: neither may then come to rest, as the residual says. Pooling by mean is safe.

    Raises:
        TypeError: a stage has no place in the energy, or an activation no derivative to settle by.

    References:
        Scellier & Bengio. Equilibrium propagation: bridging the gap between energy-based models and
        backpropagation. Frontiers in Computational Neuroscience, 2017.
    """

    chain: Chain
    relaxation: Relaxation = eqx.field(default_factory=GradientFlow, kw_only=True)

    def __check_init__(self):
        """Refuse activations that no gradient flow moves."""
        for layer, activation in enumerate(self.activations, 1):
            if activation in HARD:
                raise TypeError(
                    f"Hopfield cannot settle with the activation of layer {layer}, whose derivative is zero; pass "
                    "activation='hard-sigmoid'"
                )

    def energy(self, state: PyTree, x: Activity) -> Float[Array, " batch"]:
        """Return sum_k 1/2 ||s_k||^2 - <rho(s_k), W_k rho(s_{k-1}) + b_k> of each example."""
        return sum((0.5 * inner(s, s) for s in state), -primitive(self.chain, self.rates(state), x))

    def rates(self, state: PyTree) -> list[Activity]:
        """Return rho(s_k) of each layer, which of units that are kept in their range is a multiple of s_k."""

        def rate(activation: Activation, s: Activity) -> Activity:
            if activation in BOUNDS:
                return s / 2 if activation is HALF else s
            return activation(s)

        return [rate(*unit) for unit in zip(self.activations, state, strict=True)]

    def dynamics(self, x: Activity, nudge: Nudge | None = None) -> Dynamics:
        """Return the projected gradient flow, and the rest of each unit where it is known.

        Args:
            x: the clamped input.
            nudge: what is added to the energy; default: nothing. A unit's answer is exact to one that is a sum of
                quadratic functions of single units, as squared error and the tether of `Initialized` are.
        """
        flow = super().dynamics(x, nudge)
        if not all(activation in BOUNDS for activation in self.activations):
            return flow

        def answer(state: PyTree) -> PyTree:
            curvatures = jax.tree.map(jnp.ones_like, state)
            if nudge is not None:
                curvatures = jax.tree.map(jnp.add, curvatures, _bend(nudge, state))
            return self.project(jax.tree.map(lambda s, v, c: s + v / c, state, flow.velocity(state), curvatures))

        return flow._replace(answer=answer)

    def project(self, state: PyTree) -> list[Activity]:
        """Return the state with hard sigmoids clipped to [0, 1], half-hard ones to [0, 2], and rectifiers above 0."""
        bounds = [BOUNDS.get(activation) for activation in self.activations]
        return [s if b is None else jnp.clip(s, *b) for s, b in zip(state, bounds, strict=True)]

    def output(self, state: PyTree) -> Activity:
        """Return rho(s_L)."""
        return self.rates(state)[-1]


def _bend(nudge: Nudge, state: PyTree) -> PyTree:
    """The nudge's second derivative with respect to each unit, for a sum of functions of single units.

    It is kept above -1: where a nudge outdoes the unit's own curvature, there is no rest but at the end of the range
    that lies downhill.
    """
    slope = jax.grad(lambda state: jnp.sum(nudge(state)))
    _, bend = jax.jvp(slope, (state,), (jax.tree.map(jnp.ones_like, state),))
    return jax.tree.map(lambda b: jnp.maximum(b, jnp.finfo(b.dtype).eps - 1), bend)
