"""Results as numbers: grouped by rule, averaged over seeds, or one flat record an epoch."""

import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Results = Mapping[str, Any]
Run = Mapping[str, Any]
Epoch = Mapping[str, Any]


class Curve(NamedTuple):
    """One quantity of one rule over training: its mean over the seeds, and their lowest and highest value."""

    epoch: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def summary(results: Results) -> list[dict[str, Any]]:
    """Return one record a rule: how well it ended, how fast it ran, how well it was aligned.

    Args:
        results: what a comparison stored; see `anyprop.report`.

    Returns:
        Records in the order in which the rules first occur, each with

        - `rule`: its name;
        - `seeds`: how many runs it has; `finished`: how many of them ended with a finite test error, or test loss
          where errors are not counted;
        - `test_error_mean`, `test_error_sd`, `test_loss_mean`, `test_loss_sd`: over the seeds in which it is finite, at
          each one's last epoch, or at its `best_epoch` where it may stop early; errors are fractions; the standard
          deviation divides by n - 1 and is NaN for one seed;
        - `steps_per_second`, `ratio_to_backprop`: medians over seeds; a ratio of 0.5 is half as many steps
          a second as backprop takes;
        - `alignment`: mean angle to the exact gradient at that epoch, over seeds and layers, in degrees;
        - `feedback_alignment`: the same mean for the angle between feedback and forward weights;
        - `seconds`: mean training time, of all epochs.

        What was not recorded is NaN.

    Raises:
        ValueError: the results hold no runs.
    """
    return [_summary_of(rule, runs) for rule, runs in runs_by_rule(results).items()]


def _summary_of(rule: str, runs: Sequence[Run]) -> dict[str, Any]:
    ends = [end_of(run) for run in runs]
    last = [epochs_of(run)[-1] for run in runs if epochs_of(run)]
    cost = [run.get("cost") or {} for run in runs]
    error, loss = (_finite(number(epoch.get(key)) for epoch in ends) for key in ("test_error", "test_loss"))
    return {
        "rule": rule,
        "seeds": len(runs),
        "finished": len(error or loss),
        "test_error_mean": mean(error),
        "test_error_sd": _sd(error),
        "test_loss_mean": mean(loss),
        "test_loss_sd": _sd(loss),
        "steps_per_second": _median(number(c.get("steps_per_second")) for c in cost),
        "ratio_to_backprop": _median(number(c.get("ratio_to_backprop")) for c in cost),
        "alignment": mean(_angles(ends, "alignment")),
        "feedback_alignment": mean(_angles(ends, "feedback_alignment")),
        "seconds": mean(number(epoch.get("seconds")) for epoch in last),
    }


def tidy(results: Results) -> list[dict[str, Any]]:
    """Return one flat record a (rule, seed, epoch), for a data frame or a CSV file.

    All records have the same columns: `rule`, `seed`, what was measured each epoch, the angles as
    `alignment/1 Dense`, the cost as `cost/steps_per_second`. What a record lacks is NaN.

    Args:
        results: what a comparison stored; see `anyprop.report`.

    Raises:
        ValueError: the results hold no runs.
    """
    records = [
        {"rule": rule, "seed": run.get("seed"), **_flat(epoch), **_flat({"cost": run.get("cost") or {}})}
        for rule, runs in runs_by_rule(results).items()
        for run in runs
        for epoch in epochs_of(run)
    ]
    columns = dict.fromkeys(column for record in records for column in record)
    return [{column: record.get(column, math.nan) for column in columns} for record in records]


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}/")
        else:
            flat[f"{prefix}{name}"] = math.nan if value is None else value
    return flat


def runs_by_rule(results: Results) -> dict[str, list[Run]]:
    """Return the runs of each rule, rules in the order in which they first occur.

    Raises:
        ValueError: there are none.
    """
    runs = results.get("runs") or []
    if not runs:
        raise ValueError('results hold no runs, so there is nothing to report: results["runs"] must list at least one')
    grouped: dict[str, list[Run]] = {}
    for run in runs:
        grouped.setdefault(str(run["rule"]), []).append(run)
    return grouped


def epochs_of(run: Run) -> Sequence[Epoch]:
    """Return the state before training, where it was recorded, and the epochs, which may be none."""
    return [*([start] if (start := run.get("start")) else []), *(run.get("epochs") or [])]


def end_of(run: Run) -> Epoch:
    """Return the epoch whose weights the run gave back: its `best_epoch` if it names one, else its last; may be {}."""
    epochs = epochs_of(run)
    best = run.get("best_epoch")
    last = epochs[-1] if epochs else {}
    return last if best is None else next((epoch for epoch in epochs if epoch.get("epoch") == best), last)


def layers(results: Results) -> list[str]:
    """Return the layers whose alignment was measured, from the bottom of the network to its top."""
    runs = [run for runs in runs_by_rule(results).values() for run in runs]
    names = [name for run in runs for epoch in epochs_of(run) for name in epoch.get("alignment") or {}]
    return [name for name in dict.fromkeys(names) if name != "all"]


def curve(runs: Iterable[Run], value: Callable[[Epoch], Any]) -> Curve:
    """Return `value` at every epoch at which at least one seed has a finite one."""
    found: dict[int, list[float]] = {}
    for run in runs:
        for position, epoch in enumerate(epochs_of(run), start=1):
            if math.isfinite(x := number(value(epoch))):
                found.setdefault(epoch.get("epoch", position), []).append(x)
    at = sorted(found)
    return Curve(
        np.array(at, dtype=float),
        *(np.array([statistic(found[e]) for e in at], dtype=float) for statistic in (np.mean, np.min, np.max)),
    )


def number(value: Any) -> float:
    """Return `value` as a float: what JSON stores as null, and what is no number at all, is NaN."""
    return float(value) if isinstance(value, numbers.Real) else math.nan


def mean(values: Iterable[float]) -> float:
    """Return the mean of the finite values, NaN if there are none."""
    finite = _finite(values)
    return float(np.mean(finite)) if finite else math.nan


def _sd(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def _median(values: Iterable[float]) -> float:
    finite = _finite(values)
    return float(np.median(finite)) if finite else math.nan


def _finite(values: Iterable[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


def _angles(epochs: Iterable[Epoch], kind: str) -> Iterable[float]:
    """Yield the angles of all single layers; the one of the whole network would count every layer twice."""
    for epoch in epochs:
        for layer, angle in (epoch.get(kind) or {}).items():
            if layer != "all":
                yield number(angle)
