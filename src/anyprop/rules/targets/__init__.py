"""Rules that give every layer a target of its own."""

from ._difference_target_propagation import DifferenceTargetPropagation
from ._discrete_target_propagation import DiscreteTargetPropagation
from ._iterative_target_propagation import IterativeTargetPropagation
from ._local_difference_reconstruction import LocalDifferenceReconstruction
from ._simplified_target_propagation import SimplifiedTargetPropagation
from ._stochastic_target_propagation import StochasticTargetPropagation
from ._target_propagation import TargetPropagation
from ._target_propagation_em import TargetPropagationEM

__all__ = [
    "DifferenceTargetPropagation",
    "DiscreteTargetPropagation",
    "IterativeTargetPropagation",
    "LocalDifferenceReconstruction",
    "SimplifiedTargetPropagation",
    "StochasticTargetPropagation",
    "TargetPropagation",
    "TargetPropagationEM",
]
