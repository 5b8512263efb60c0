"""Instruments: how good a rule's update is, and what it costs."""

from ._alignment import alignment, feedback_alignment_angles
from ._cost import Cost, bench, cost
from ._estimate import Estimate, estimate
from ._parzen import parzen_log_likelihood
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
    "ImprovedTargets",
    "InverseCondition",
    "TargetAngles",
    "alignment",
    "bench",
    "cost",
    "estimate",
    "feedback_alignment_angles",
    "improved_targets",
    "inverse_condition",
    "parzen_log_likelihood",
    "target_angles",
]
