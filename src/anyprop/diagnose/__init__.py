"""Instruments: how good a rule's update is, and what it costs."""

from ._alignment import alignment, feedback_alignment_angles
from ._cost import Cost, bench, cost
from ._estimate import Estimate, estimate

__all__ = ["Cost", "Estimate", "alignment", "bench", "cost", "estimate", "feedback_alignment_angles"]
