"""Rules that free every layer's activity as a variable, and solve for activities and weights in turns."""

from ._admm import ADMM
from ._alternating_minimization import AlternatingMinimization
from ._alternating_minimization_memory import AlternatingMinimizationMemory
from ._method_of_auxiliary_coordinates import MethodOfAuxiliaryCoordinates
from ._offline_alternating_minimization import OfflineAlternatingMinimization

__all__ = [
    "ADMM",
    "AlternatingMinimization",
    "AlternatingMinimizationMemory",
    "MethodOfAuxiliaryCoordinates",
    "OfflineAlternatingMinimization",
]
