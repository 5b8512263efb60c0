"""Rules that compare a system at rest with itself at rest under a nudge."""

from ._backprop_through_relaxation import BackpropThroughRelaxation
from ._boltzmann_learning import BoltzmannLearning
from ._continual_equilibrium_propagation import ContinualEquilibriumPropagation
from ._contrastive_divergence import ContrastiveDivergence
from ._contrastive_hebbian import ContrastiveHebbian
from ._deep_boltzmann import DeepBoltzmann, pretrain_deep_boltzmann
from ._early_inference import EarlyInference
from ._equilibrium_propagation import EquilibriumPropagation
from ._holomorphic_equilibrium_propagation import HolomorphicEquilibriumPropagation
from ._implicit_differentiation import ImplicitDifferentiation
from ._initialized_equilibrium_propagation import InitializedEquilibriumPropagation
from ._predictive_coding import PredictiveCoding
from ._single_phase import SinglePhase
from ._stochastic_equilibrium_propagation import StochasticEquilibriumPropagation
from ._temporal_derivative import TemporalDerivative
from ._vector_field_equilibrium_propagation import VectorFieldEquilibriumPropagation

__all__ = [
    "BackpropThroughRelaxation",
    "BoltzmannLearning",
    "ContinualEquilibriumPropagation",
    "ContrastiveDivergence",
    "ContrastiveHebbian",
    "DeepBoltzmann",
    "EarlyInference",
    "EquilibriumPropagation",
    "HolomorphicEquilibriumPropagation",
    "ImplicitDifferentiation",
    "InitializedEquilibriumPropagation",
    "PredictiveCoding",
    "SinglePhase",
    "StochasticEquilibriumPropagation",
    "TemporalDerivative",
    "VectorFieldEquilibriumPropagation",
    "pretrain_deep_boltzmann",
]
