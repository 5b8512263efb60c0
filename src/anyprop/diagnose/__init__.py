"""Instruments: how good a rule's update is, and what it costs."""

from ._alignment import alignment, feedback_alignment_angles
from ._annealed_importance import LogPartition, annealed_importance
from ._autocorrelation import autocorrelation_time
from ._cost import Cost, bench, cost
from ._early_inference import FirstDisplacements, early_inference
from ._estimate import Estimate, estimate
from ._gdu import StepwiseUpdates, gradient_descending_updates
from ._parzen import parzen_log_likelihood
from ._stdp import STDPSignature, stdp_signature
from ._targets import (
    ImprovedTargets,
    InverseCondition,
    TargetAngles,
    improved_targets,
    inverse_condition,
    target_angles,
)

__all__ = [
    "Cost",
    "Estimate",
    "FirstDisplacements",
    "ImprovedTargets",
    "InverseCondition",
    "LogPartition",
    "STDPSignature",
    "StepwiseUpdates",
    "TargetAngles",
    "alignment",
    "annealed_importance",
    "autocorrelation_time",
    "bench",
    "cost",
    "early_inference",
    "estimate",
    "feedback_alignment_angles",
    "gradient_descending_updates",
    "improved_targets",
    "inverse_condition",
    "parzen_log_likelihood",
    "stdp_signature",
    "target_angles",
]
