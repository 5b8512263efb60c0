"""Energies: systems that compute by settling.

    s* = argmin_s E(theta, s, x),   output = readout of s*

x is clamped, theta are the arrays of the module, and every derivative of E comes from JAX.
"""

import abc

import equinox as eqx
from jaxtyping import Array, Float

from ._relaxation import GradientFlow, Settled, State


class Energy(eqx.Module):
    """A system with an energy, that answers an input by settling to a minimum.

    Subclass it to train a system of your own: an energy, where its state starts, and how its answer is read.

    Args:
        relaxation: how it settles when it is called.
    """

    relaxation: eqx.AbstractVar[GradientFlow]

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

    def settle(self, x: Float[Array, "batch ..."], start: State | None = None) -> Settled:
        """Let the system settle, with nothing but the input acting on it.

        Args:
            x: the clamped input.
            start: where to start from; default: `self.start(x)`.
        """
        start = self.start(x) if start is None else start
        return self.relaxation(lambda state: self.energy(state, x), start, self.project)

    def __call__(self, x: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """Return the prediction of the settled system; its derivatives are those of a system at rest."""
        return self.output(self.settle(x).state)
