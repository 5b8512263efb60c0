"""Rules that learn from what a random change does to the cost."""

from ._actor_critic import ActorCritic
from ._conductance_perturbation import ConductancePerturbation
from ._node_perturbation import NodePerturbation
from ._reinforce import Reinforce
from ._straight_through import StraightThrough
from ._temporal_difference import Environment, Episode, TemporalDifferenceActorCritic
from ._weight_perturbation import WeightPerturbation

__all__ = [
    "ActorCritic",
    "ConductancePerturbation",
    "Environment",
    "Episode",
    "NodePerturbation",
    "Reinforce",
    "StraightThrough",
    "TemporalDifferenceActorCritic",
    "WeightPerturbation",
]
