"""The Hopfield energy of a layered network, as a view of a chain.

    E = sum_k 1/2 ||s_k||^2 - <rho(s_k), W_k rho(s_{k-1}) + b_k>,    rho(s_0) = x,   k = 1 ... L

so that -dE/ds_k = rho'(s_k) (W_k rho(s_{k-1}) + W_{k+1}^T rho(s_{k+1}) + b_k) - s_k: every weight is used in both
directions. Here s_k is the state of the layer's units, and W_k any affine layer of the chain. Pooling and flattening
between two layers act on the rates and belong to W_k.

Units of bounded range: a hard sigmoid's state is kept in [0, 1], and a rectifier's above 0. In there rho(s) = s, and
rho'(s) = 1 with both ends included, so that a unit leaves the end of its range when it is driven inwards.

Source: Scellier and Bengio 2017.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..nets import HARD, Activation, Affine, Chain, Flatten, Pool, activation
from ._energy import Energy
from ._relaxation import GradientFlow

Activity = Float[Array, "batch ..."]

RANGES: dict[Activation, tuple[float, float]] = {
    activation("hard-sigmoid"): (0.0, 1.0),
    activation("relu"): (0.0, jnp.inf),
}
"""Activations with f(a) = the point nearest to a in a range, and that range."""


class Hopfield(Energy):
    """A chain read as a layered Hopfield network, which settles with the weights used in both directions.

    The state is a list of one array for each dense or convolutional layer, and starts at zero. The prediction
    is rho(s_L).

    Args:
        chain: dense and convolutional layers, the last stage one of them, with pooling and flattening between
            them; hard sigmoids are what equilibrium propagation was published with.
        relaxation: how it settles when it is called.

    Raises:
        TypeError: a stage has no place in the energy, or an activation no derivative to settle by.

    References:
        Scellier & Bengio. Equilibrium propagation: bridging the gap between energy-based models and
        backpropagation. Frontiers in Computational Neuroscience, 2017.
    """

    chain: Chain
    relaxation: GradientFlow = eqx.field(default_factory=GradientFlow, kw_only=True)

    def __check_init__(self):
        """Refuse stages and activations that the energy has no term for."""
        for i, stage in enumerate(self.chain.stages):
            last = i == len(self.chain.stages) - 1
            if not isinstance(stage, Affine) and (last or not isinstance(stage, Pool | Flatten)):
                place = "at the end " if last else ""
                raise TypeError(
                    f"Hopfield has no energy for a {type(stage).__name__} {place}(stages[{i}]); pass a chain of dense "
                    "and convolutional layers, with pooling and flattening between them, such as "
                    "ap.nets.mlp(784, 500, 10, activation='hard-sigmoid', output='hard-sigmoid', key=key)"
                )
            if isinstance(stage, Affine) and stage.activation in HARD:
                raise TypeError(
                    f"Hopfield cannot settle with the activation of stages[{i}], whose derivative is zero; pass "
                    "activation='hard-sigmoid'"
                )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, without the batch axis."""
        return self.chain.input_shape

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of one prediction, without the batch axis."""
        return self.chain.output_shape

    def energy(self, state: PyTree, x: Activity) -> Float[Array, " batch"]:
        """Return sum_k 1/2 ||s_k||^2 - <rho(s_k), W_k rho(s_{k-1}) + b_k> of each example."""
        layers = iter(state)
        energy, rate = jnp.zeros(len(x)), x
        for stage in self.chain.stages:
            if isinstance(stage, Affine):
                s = next(layers)
                below, rate = rate, _rate(stage, s)
                energy += 0.5 * _inner(s, s) - _inner(rate, stage.drive(below))
            else:
                rate = stage(rate)
        return energy

    def start(self, x: Activity) -> list[Activity]:
        """Return zeros for every layer."""
        state, rate = [], jax.eval_shape(lambda x: x, x)
        for stage in self.chain.stages:
            rate = jax.eval_shape(stage, rate)
            if isinstance(stage, Affine):
                state.append(jnp.zeros(rate.shape, rate.dtype))
        return state

    def project(self, state: PyTree) -> list[Activity]:
        """Return the state with hard sigmoids clipped to [0, 1] and rectifiers to what is not below 0."""
        bounds = [RANGES.get(stage.activation) for stage in self._layers]
        return [s if b is None else jnp.clip(s, *b) for s, b in zip(state, bounds, strict=True)]

    def output(self, state: PyTree) -> Activity:
        """Return rho(s_L)."""
        return _rate(self._layers[-1], state[-1])

    @property
    def _layers(self) -> list[Affine]:
        return [stage for stage in self.chain.stages if isinstance(stage, Affine)]


def _rate(layer: Affine, s: Activity) -> Activity:
    """rho(s), which is s itself for units that are kept in their range."""
    return s if layer.activation in RANGES else layer.activation(s)


def _inner(a: Activity, b: Activity) -> Float[Array, " batch"]:
    return jnp.sum(a * b, axis=tuple(range(1, a.ndim)))
