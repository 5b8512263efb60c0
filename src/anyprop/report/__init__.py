"""What a comparison found, for people: a page, figures, a terminal table, and records for other tools.

Everything here works from *results* alone, the plain dictionary that `results.json` holds, so a report
can be made again years later without a network, a data set or a device:

```python
{
    "settings": {"data": "mnist", "net": "784-256-10", "epochs": 3, "rules": {"backprop": {}}, ...},
    "versions": {"anyprop": "0.1.0", "jax": "0.10.2", ...},
    "runs": [
        {
            "rule": "kolen-pollack", "seed": 0,
            "cost": {"steps_per_second": 812.0, "ratio_to_backprop": 0.93, "flops_per_step": 2.4e8},
            "epochs": [
                {
                    "epoch": 1, "train_loss": 0.31, "test_loss": 0.29, "test_error": 0.081, "seconds": 1.4,
                    "alignment": {"1 Dense": 31.0, "2 Dense": 4.0, "all": 22.0},
                    "feedback_alignment": {"2 Dense": 12.0},
                },
            ],
        },
    ],
}
```

Errors are fractions, angles degrees, `seconds` the training time since the start. Any number may be
missing, `None` or NaN; what is made of it is then left out. A run that may stop early also has
`"best_epoch"`, the epoch with the lowest validation loss, whose weights it gave back: it is summed up by
that epoch, any other by its last.
"""

import importlib
from typing import TYPE_CHECKING, Any

from ._records import summary, tidy

if TYPE_CHECKING:
    from ._html import write_html
    from ._plots import (
        alignment_figure,
        cost_figure,
        learning_figure,
        plot_alignment,
        plot_cost,
        plot_learning,
    )
    from ._table import table

# matplotlib takes longer to import than the rest of the package, so it waits until a figure is asked for.
_LAZY = {
    "alignment_figure": "_plots",
    "cost_figure": "_plots",
    "learning_figure": "_plots",
    "plot_alignment": "_plots",
    "plot_cost": "_plots",
    "plot_learning": "_plots",
    "table": "_table",
    "write_html": "_html",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return __all__


__all__ = [
    "alignment_figure",
    "cost_figure",
    "learning_figure",
    "plot_alignment",
    "plot_cost",
    "plot_learning",
    "summary",
    "table",
    "tidy",
    "write_html",
]
