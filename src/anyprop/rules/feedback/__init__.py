"""Rules that send the error down through weights other than the forward ones."""

from ._feedback_alignment import FeedbackAlignment

__all__ = ["FeedbackAlignment"]
