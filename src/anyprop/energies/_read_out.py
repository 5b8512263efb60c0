"""A read-out that the system does not feel.

    output = W rho(s_L) + b,      F(theta, beta, s) = E(theta, s, x) + beta C(W rho(s_L) + b, y)

W and b are in no energy: the free system rests as if they were not there, and in a nudged phase it is the slope of the
cost that reaches it through them. Under cross-entropy they turn rates, which are bounded, into the logits of a softmax.
Their own update is the mean of dC/dW over the nudged phases, which needs no second circuit either.

Source: Laborieux, Ernoult, Scellier, Bengio, Grollier and Querlioz 2021.

Exact limit: as beta -> 0, equilibrium propagation gives the gradient of the cost with respect to all parameters, those
of the read-out included.
"""

import math

from jaxtyping import Array, Float, PyTree

from ..nets import Dense
from ._energy import Energy, Nudge
from ._relaxation import Dynamics, Relaxation, State


class ReadOut(Energy):
    """An energy whose outputs pass through one more layer, which is not part of it.

    Use it for a cross-entropy, whose logits are not bounded as the rates of a system are:

        hidden = ap.nets.mlp(784, 500, 100, activation="hard-sigmoid", output="hard-sigmoid", key=key)
        model = ap.energies.ReadOut(ap.energies.Convergent(hidden), ap.nets.Dense(100, 10, key=key))
        rule = ap.EquilibriumPropagation(relaxation="fixed-point", loss="cross-entropy")

    Args:
        system: what settles.
        readout: the dense layer that reads its outputs, flattened to one axis.
        relaxation: how it settles when it is called; default: as `system` does.

    Raises:
        TypeError: `system` is no energy.
        ValueError: `readout` takes another number of units than the system has outputs.

    References:
        Laborieux, Ernoult, Scellier, Bengio, Grollier & Querlioz. Scaling equilibrium propagation to deep ConvNets
        by drastically reducing its gradient estimator bias. Frontiers in Neuroscience, 2021.
    """

    system: Energy
    readout: Dense
    relaxation: Relaxation

    def __init__(self, system: Energy, readout: Dense, *, relaxation: Relaxation | None = None):
        if not isinstance(system, Energy):
            raise TypeError(
                f"system must be an energies.Energy, not {type(system).__name__}; read a chain as one, such as "
                "energies.Convergent(chain)"
            )
        taken, shape = readout.weight.shape[0], getattr(system, "output_shape", None)
        if shape is not None and taken != math.prod(shape):
            raise ValueError(
                f"readout takes {taken} units, but the system has {math.prod(shape)} outputs; pass "
                f"ap.nets.Dense({math.prod(shape)}, {readout.weight.shape[1]}, key=key)"
            )
        self.system, self.readout = system, readout
        self.relaxation = system.relaxation if relaxation is None else relaxation

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, without the batch axis."""
        return self.system.input_shape  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of one prediction, without the batch axis."""
        return self.readout.weight.shape[1:]

    def energy(self, state: State, x: Float[Array, "batch ..."]) -> Float[Array, " batch"]:
        """Return the energy of the system."""
        return self.system.energy(state, x)

    def start(self, x: Float[Array, "batch ..."]) -> State:
        """Return where the system starts from."""
        return self.system.start(x)

    def project(self, state: State) -> State:
        """Return the nearest state in the range of the system's units."""
        return self.system.project(state)

    def dynamics(self, x: Float[Array, "batch ..."], nudge: Nudge | None = None) -> Dynamics:
        """Return what moves the system."""
        return self.system.dynamics(x, nudge)

    def output(self, state: PyTree) -> Float[Array, "batch ..."]:
        """Return what the read-out makes of the system's outputs."""
        rates = self.system.output(state)
        return self.readout(rates.reshape(len(rates), -1))
