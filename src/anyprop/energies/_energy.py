"""Energies: systems that compute by settling.

    s* = argmin_s E(theta, s, x),   output = readout of s*

x is clamped, theta are the arrays of the module, and every derivative of E comes from JAX.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from ._device import Device, Nudge
from ._relaxation import Dynamics, Relaxation, Settled, State


class Energy(Device):
    """A system with an energy, that answers an input by settling to a minimum.

    Subclass it to train a system of your own: an energy, where its state starts, and how its answer is read.

    Args:
        relaxation: how it settles when it is called.
    """

    relaxation: eqx.AbstractVar[Relaxation]

    @abc.abstractmethod
    def energy(self, state: State, x: Float[Array, "batch ..."]) -> Float[Array, " batch"]:
        """Return the energy of each example.

        Args:
            state: the state, the batch on the first axis of every array.
            x: the clamped input.
        """

    @abc.abstractmethod
    def start(self, x: Float[Array, "batch ..."]) -> State:
        """Return the state that examples start from which nothing is known of."""

    @abc.abstractmethod
    def output(self, state: State) -> Float[Array, "batch ..."]:
        """Return the prediction that a state stands for."""

    def project(self, state: State) -> State:
        """Return the nearest state in the range of the units; here every state is."""
        return state

    def dynamics(self, x: Float[Array, "batch ..."], nudge: Nudge | None = None) -> Dynamics:
        """Return what moves the state: the slope of the energy, and of a nudge.

        Args:
            x: the clamped input.
            nudge: what is added to the energy; default: nothing.
        """

        def total(state: State) -> Float[Array, ""]:
            energy = self.energy(state, x)
            return jnp.sum(energy if nudge is None else energy + nudge(state))

        return Dynamics(lambda state: jax.tree.map(jnp.negative, jax.grad(total)(state)), self.project)

    def settle(
        self,
        x: Float[Array, "batch ..."],
        start: State | None = None,
        *,
        nudge: Nudge | None = None,
        relaxation: Relaxation | None = None,
        key: Key[Array, ""] | None = None,
    ) -> Settled:
        """Let the system settle, with nothing but the input and the nudge acting on it.

        Args:
            x: the clamped input.
            start: where to start from; default: `self.start(x)`.
            nudge: what is added to the energy; default: nothing.
            relaxation: how to settle; default: `self.relaxation`.
            key: random key, for relaxations with noise.
        """
        start = self.start(x) if start is None else start
        return (relaxation or self.relaxation)(self.dynamics(x, nudge), start, key=key)

    def statistics(self, state: State, x: Float[Array, "batch ..."]) -> PyTree:
        """Return the batch's mean dE/dtheta at a state, shaped like this module's floating-point arrays."""
        return eqx.filter_grad(lambda energy: jnp.mean(energy.energy(state, x)))(self)

    def contrast(self, state: State, other: State, x: Float[Array, "batch ..."]) -> PyTree:
        """Return the batch's mean dE/dtheta at one state less that at another."""
        # As one batch with signs: large gradients are written once and not twice, and their difference never.
        both, inputs = jax.tree.map(lambda *pair: jnp.concatenate(pair), (state, x), (other, x))
        signs = jnp.repeat(jnp.array([1.0, -1.0]), len(x))
        return eqx.filter_grad(lambda energy: jnp.vdot(signs, energy.energy(both, inputs)) / len(x))(self)

    def __call__(self, x: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """Return the prediction of the settled system; its derivatives are those of a system at rest."""
        return self.output(self.settle(x).state)
