"""Training: `fit` one rule, `compare` several, and go on where a run stopped."""

from ._checkpoint import CheckpointError
from ._compare import Comparison, compare
from ._descend import Descent, descend
from ._fit import Diverged, EpochEnd, Run, check, fit
from ._program import describe
from ._progress import Progress

__all__ = [
    "CheckpointError",
    "Comparison",
    "Descent",
    "Diverged",
    "EpochEnd",
    "Progress",
    "Run",
    "check",
    "compare",
    "descend",
    "describe",
    "fit",
]
