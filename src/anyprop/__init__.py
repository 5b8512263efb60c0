"""anyprop: train a neural network by any credit-assignment rule.

    rule = ap.FeedbackAlignment()
    run = ap.fit(rule, net, data, optimizer=optax.adam(1e-3), epochs=5, seeds=3)

Every rule is here by its class name (`ap.Backprop`, `ap.KolenPollack`, ...); `ap.rules.RULES` lists them.
"""

from . import data, diagnose, energies, losses, nets, report, rules, testing, training
from ._citations import citation
from .contract import Batch, Card, Credit, DataInfo, Learner, Needs, Rule
from .rules.auxiliary import *  # noqa: F403
from .rules.equilibrium import *  # noqa: F403
from .rules.exact import *  # noqa: F403
from .rules.feedback import *  # noqa: F403
from .rules.perturbation import *  # noqa: F403
from .rules.targets import *  # noqa: F403
from .training import CheckpointError, Comparison, Diverged, Run, compare, fit

__all__ = [
    "Batch",
    "Card",
    "CheckpointError",
    "Comparison",
    "Credit",
    "DataInfo",
    "Diverged",
    "Learner",
    "Needs",
    "Rule",
    "Run",
    "citation",
    "compare",
    "data",
    "diagnose",
    "energies",
    "fit",
    "losses",
    "nets",
    "report",
    "rules",
    "testing",
    "training",
]
