"""Rules that compare a system at rest with itself at rest under a nudge."""

from ._contrastive_hebbian import ContrastiveHebbian
from ._early_inference import EarlyInference
from ._equilibrium_propagation import EquilibriumPropagation
from ._temporal_derivative import TemporalDerivative

__all__ = [
    "ContrastiveHebbian",
    "EarlyInference",
    "EquilibriumPropagation",
    "TemporalDerivative",
]
