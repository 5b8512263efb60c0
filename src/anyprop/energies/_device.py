"""Devices: systems that answer by settling, whose equations their trainer does not know.

What equilibrium propagation asks of a physical system is what its owner can do to it: clamp inputs, push on its
outputs, let it settle, read it, and let each parameter's own circuit measure how the energy depends on it,

    dE/dtheta,  averaged over a batch: 1/2 (v_i - v_j)^2 at a resistor, -s_i s_j at a Hebbian synapse.

`Energy` is a device whose equations are known: there JAX measures.
"""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from ._relaxation import Relaxation, Settled, State

Nudge = Callable[[State], Float[Array, " batch"]]
"""What is added to the energy of each example, as a function of the state: beta times a cost."""


class Device(eqx.Module):
    """A system that settles, and measures at its own parameters what they have to do with it.

    Subclass it to train hardware in the loop, behind `jax.pure_callback`, or a simulation that cannot be
    differentiated. Its floating-point arrays are what an optimizer moves: the values that the parameters are set to.
    `EquilibriumPropagation` needs no more than this. `WeightPerturbation` needs less: it calls the device and looks
    at the cost.
    """

    @abc.abstractmethod
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
            start: where to start from; default: where examples start from which nothing is known of. Hardware
                starts from wherever it is.
            nudge: what is added to the energy; default: nothing. Hardware takes its slope, -d nudge / d state, as the
                currents to feed into its outputs.
            relaxation: how to settle; default: as it does by itself. Hardware always does.
            key: random key for noise; without one there is none.
        """

    @abc.abstractmethod
    def output(self, state: State) -> Float[Array, "batch ..."]:
        """Return the prediction that a state stands for."""

    @abc.abstractmethod
    def statistics(self, state: State, x: Float[Array, "batch ..."]) -> PyTree:
        """Return dE/dtheta, the mean over the batch, for each floating-point array of this module, in its place.

        Args:
            state: a state that `settle` returned.
            x: the input that it settled with.
        """

    def contrast(self, state: State, other: State, x: Float[Array, "batch ..."]) -> PyTree:
        """Return `statistics` of one state less that of another, of a system that settled twice with one input."""
        return jax.tree.map(jnp.subtract, self.statistics(state, x), self.statistics(other, x))

    def __call__(self, x: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """Return the prediction of the settled system."""
        return self.output(self.settle(x).state)
