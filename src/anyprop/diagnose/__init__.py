"""Instruments: how good a rule's update is, and what it costs."""

from ._alignment import alignment, feedback_alignment_angles
from ._cost import Cost, bench, cost
from ._early_inference import FirstDisplacements, early_inference
from ._estimate import Estimate, estimate
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
    "STDPSignature",
    "TargetAngles",
    "alignment",
    "bench",
    "cost",
    "early_inference",
    "estimate",
    "feedback_alignment_angles",
    "improved_targets",
    "inverse_condition",
    "parzen_log_likelihood",
    "stdp_signature",
    "target_angles",
]
