"""Training: `fit` one rule, `compare` several, and go on where a run stopped."""

from ._checkpoint import CheckpointError
from ._compare import Comparison, compare
from ._descend import Descent, descend
from ._fit import Diverged, EpochEnd, RuleWarning, Run, fit
from ._in_turns import in_turns
from ._layer_parallel import LayerParallel, LayerParallelState
from ._program import describe
from ._progress import Progress
from ._refusals import check
from ._schedules import alternating_minimization_bound, alternating_minimization_schedule

__all__ = [
    "CheckpointError",
    "Comparison",
    "Descent",
    "Diverged",
    "EpochEnd",
    "LayerParallel",
    "LayerParallelState",
    "Progress",
    "RuleWarning",
    "Run",
    "alternating_minimization_bound",
    "alternating_minimization_schedule",
    "check",
    "compare",
    "descend",
    "describe",
    "fit",
    "in_turns",
]
