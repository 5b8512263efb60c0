"""Rules that give every layer a target of its own."""

from ._difference_target_propagation import DifferenceTargetPropagation
from ._target_propagation import TargetPropagation

__all__ = ["DifferenceTargetPropagation", "TargetPropagation"]
