"""Rules that send the error down through weights other than the forward ones."""

from ._direct_feedback_alignment import DirectFeedbackAlignment
from ._feedback_alignment import FeedbackAlignment
from ._indirect_feedback_alignment import IndirectFeedbackAlignment
from ._kolen_pollack import KolenPollack
from ._sign_symmetry import SignSymmetry
from ._weight_mirror import WeightMirror

__all__ = [
    "DirectFeedbackAlignment",
    "FeedbackAlignment",
    "IndirectFeedbackAlignment",
    "KolenPollack",
    "SignSymmetry",
    "WeightMirror",
]
