"""Energies: systems that answer by settling to a minimum, and the relaxations that take them there."""

from ._backtracking import BacktrackingFlow
from ._boltzmann import Boltzmann
from ._boltzmann_machine import BoltzmannMachine, log_partition
from ._continuation import continuation
from ._convergent import Convergent
from ._device import Device, Nudge
from ._energy import Energy
from ._feedforward import Feedforward
from ._free_energy import Enumeration, Gaussian
from ._general_boltzmann import GeneralBoltzmann
from ._hopfield import Hopfield
from ._initialized import Initialized
from ._noisy import Noisy
from ._read_out import ReadOut
from ._relaxation import Dynamics, FixedPoint, GradientFlow, Relaxation, Settled, State, Sweeps
from ._resistive import Resistive
from ._sampling import Langevin, Samples
from ._simulated_device import SimulatedDevice
from ._soft_clamps import SoftClamps
from ._solvers import Flow, Root
from ._theorem import influence_gradient, objective, rest
from ._units import Binary, OneOf, Spin, Units
from ._vector_field import VectorField
from ._weak_feedback import WeakFeedback
from ._writing import write_conductances

__all__ = [
    "BacktrackingFlow",
    "Binary",
    "Boltzmann",
    "BoltzmannMachine",
    "Convergent",
    "Device",
    "Dynamics",
    "Energy",
    "Enumeration",
    "Feedforward",
    "FixedPoint",
    "Flow",
    "Gaussian",
    "GeneralBoltzmann",
    "GradientFlow",
    "Hopfield",
    "Initialized",
    "Langevin",
    "Noisy",
    "Nudge",
    "OneOf",
    "ReadOut",
    "Relaxation",
    "Resistive",
    "Root",
    "Samples",
    "Settled",
    "SimulatedDevice",
    "SoftClamps",
    "Spin",
    "State",
    "Sweeps",
    "Units",
    "VectorField",
    "WeakFeedback",
    "continuation",
    "influence_gradient",
    "log_partition",
    "objective",
    "rest",
    "write_conductances",
]
