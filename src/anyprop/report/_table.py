"""The summary as a table for the terminal."""

import math

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from ._records import Results, summary
from ._words import Measure, angle, rate, ratio


def table(results: Results) -> Table:
    """Return the summary of `results` as a table, one row a rule, ready for `rich.print`.

    Args:
        results: what a comparison stored; see `anyprop.report`.

    Raises:
        ValueError: the results hold no runs.
    """
    records = summary(results)
    measure = Measure.of(records)
    best = min(map(measure.mean, measure.ranked(records)), default=math.nan)
    early = any(run.get("best_epoch") is not None for run in results["runs"])
    end = "Best epoch on the validation split" if early else "Last epoch"
    out = Table(
        box=SIMPLE_HEAD,
        caption=f"{end}; mean ± standard deviation over seeds.\nAngle to the exact gradient, mean over layers.",
        caption_justify="left",
    )
    out.add_column("rule", no_wrap=True)
    for heading in (measure.name, "steps/s", "vs backprop", "angle"):
        out.add_column(heading, justify="right", no_wrap=True)
    for record in records:
        out.add_row(
            escape(record["rule"]),
            measure.with_spread(record),
            rate(record["steps_per_second"]),
            ratio(record["ratio_to_backprop"]),
            angle(record["alignment"]),
            style="bold" if measure.mean(record) == best else None,
        )
    return out
