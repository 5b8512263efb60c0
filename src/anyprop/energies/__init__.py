"""Energies: systems that answer by settling to a minimum, and the relaxations that take them there."""

from ._convergent import Convergent
from ._energy import Energy, Nudge
from ._hopfield import Hopfield
from ._relaxation import Dynamics, FixedPoint, GradientFlow, Relaxation, Settled, State, Sweeps
from ._weak_feedback import WeakFeedback

__all__ = [
    "Convergent",
    "Dynamics",
    "Energy",
    "FixedPoint",
    "GradientFlow",
    "Hopfield",
    "Nudge",
    "Relaxation",
    "Settled",
    "State",
    "Sweeps",
    "WeakFeedback",
]
