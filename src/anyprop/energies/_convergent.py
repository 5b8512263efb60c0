"""A chain read as a convergent network, whose state is its rates.

    E = sum_k G_k(s_k) - Phi(s, x),   Phi = sum_k <s_k, W_k s_{k-1} + b_k>,   s_0 = x,   G_k'(s) = f_k^-1(s)

Where the rest of it stands still, a layer rests at s_k = f_k(dPhi/ds_k) = f_k(W_k s_{k-1} + W_{k+1}^T s_{k+1} + b_k).
So no derivative of f enters the dynamics:

    in discrete time (`FixedPoint`)        s <- f(dPhi/ds)
    in continuous time (`GradientFlow`)    ds/dt = f(dPhi/ds) - s, which descends E
    layer after layer (`Sweeps`)           the exact minimum of E over one layer at a time

and the update of a weight is Hebbian in the state itself, dE/dW_k = -s_k s_{k-1}^T. With hard sigmoids or rectifiers
it has the rest states of `Hopfield`.

Source: Hopfield 1984 for the energy; Movellan 1990; Ernoult, Grollier, Querlioz, Bengio and Scellier 2019.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import xlogy
from jaxtyping import Array, Float, PyTree

from ..nets import ACTIVATIONS, Activation, Chain
from ._energy import Nudge
from ._layered import Activity, Layered, primitive
from ._relaxation import Dynamics, FixedPoint, Relaxation


def _square(s: Activity) -> Activity:
    return 0.5 * s**2


def _entropy(s: Activity) -> Activity:
    return xlogy(s, s) + xlogy(1 - s, 1 - s)


LEAKS: dict[Activation, Callable[[Activity], Activity]] = {
    ACTIVATIONS["identity"]: _square,
    ACTIVATIONS["relu"]: _square,
    ACTIVATIONS["hard-sigmoid"]: _square,
    ACTIVATIONS["half-hard-sigmoid"]: lambda s: s**2,
    ACTIVATIONS["sigmoid"]: _entropy,
    ACTIVATIONS["steep-sigmoid"]: lambda s: 0.25 * _entropy(s) + 0.5 * s,
    ACTIVATIONS["tanh"]: lambda s: 0.5 * (xlogy(1 + s, 1 + s) + xlogy(1 - s, 1 - s)),
}
"""G with G' = f^-1, for each activation f."""


class Convergent(Layered):
    """A chain read as a convergent recurrent network: layers answer one another until none of them changes.

    The state is a list of the rates of each dense or convolutional layer, and starts at zero. The prediction is s_L.

    Args:
        chain: dense and convolutional layers, the last stage one of them, with pooling and flattening between them.
            A residual block's shortcut joins the drive of its last layer, which then has the block's activation.
        relaxation: how it settles when it is called.

    Raises:
        TypeError: a stage has no place in the energy, or an activation has no inverse.

    References:
        Hopfield. Neurons with graded response have collective computational properties like those of two-state
        neurons. PNAS, 1984.
        Ernoult, Grollier, Querlioz, Bengio & Scellier. Updates of equilibrium prop match gradients of backprop
        through time in an RNN with static input. NeurIPS 2019.
    """

    chain: Chain
    relaxation: Relaxation = eqx.field(default_factory=FixedPoint, kw_only=True)

    def __check_init__(self):
        """Refuse activations whose inverse has no known integral."""
        for layer, activation in enumerate(self.activations, 1):
            if activation not in LEAKS:
                known = ", ".join(repr(name) for name, f in ACTIVATIONS.items() if f in LEAKS)
                raise TypeError(
                    f"Convergent has no energy for the activation of layer {layer}; pass one of {known}, or read the "
                    "chain as a Hopfield network, which takes any differentiable activation"
                )

    def energy(self, state: PyTree, x: Activity) -> Float[Array, " batch"]:
        """Return sum_k G_k(s_k) - <s_k, W_k s_{k-1} + b_k> of each example."""
        leaks = (LEAKS[activation](s) for activation, s in zip(self.activations, state, strict=True))
        summed = (jnp.sum(leak, axis=tuple(range(1, leak.ndim))) for leak in leaks)
        return sum(summed, -primitive(self.chain, state, x))

    def rates(self, state: PyTree) -> list[Activity]:
        """Return the state, which is its rates."""
        return state

    def project(self, state: PyTree) -> list[Activity]:
        """Return the nearest rates that the activations have, from f(-inf) to f(inf)."""
        units = zip(self.activations, state, strict=True)
        return [jnp.clip(s, *f(jnp.array([-jnp.inf, jnp.inf], s.dtype))) for f, s in units]

    def dynamics(self, x: Activity, nudge: Nudge | None = None) -> Dynamics:
        """Return ds/dt = f(dPhi/ds) - s, and f(dPhi/ds) itself; a nudge is taken from Phi."""

        def drive(state: PyTree) -> Float[Array, ""]:
            phi = primitive(self.chain, state, x)
            return jnp.sum(phi if nudge is None else phi - nudge(state))

        def answer(state: PyTree) -> list[Activity]:
            drives = jax.grad(drive)(state)
            return [activation(a) for activation, a in zip(self.activations, drives, strict=True)]

        def velocity(state: PyTree) -> list[Activity]:
            return jax.tree.map(jnp.subtract, answer(state), state)

        # Rates move towards answers, and so stay in range unprojected; complex ones have none to be projected to.
        return Dynamics(velocity, lambda state: state, answer)

    def output(self, state: PyTree) -> Activity:
        """Return s_L."""
        return state[-1]
