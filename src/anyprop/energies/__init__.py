"""Energies: systems that answer by settling to a minimum, and the relaxations that take them there."""

from ._energy import Energy
from ._hopfield import Hopfield
from ._relaxation import GradientFlow, Settled, State

__all__ = ["Energy", "GradientFlow", "Hopfield", "Settled", "State"]
