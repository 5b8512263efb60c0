"""What a reproduction is, and the form of its result."""

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .._versions import versions
from ..training import Comparison


@dataclasses.dataclass(frozen=True)
class Claim:
    """A number that a paper reports, and how close to it we mean to come.

    Args:
        what: what was measured, such as `"feedback-alignment test error"`.
        value: the paper's number, in `unit`.
        unit: `"%"`, `"degrees"`, `"ratio"`, ...
        tolerance: how far from `value` still counts as reproduced, in `unit`.
        evidence: where the number is known from: `"paper"`, `"authors' code"`, `"third-party code"`,
            `"theory"`, `"from memory, unverified"`, or `"own target"`; with how it differs from the paper's, if
            it does.
        at_most: whether `value` is a bound to stay under, rather than a number to come near.
    """

    what: str
    value: float
    unit: str
    tolerance: float
    evidence: str
    at_most: bool = False


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line may change about a reproduction.

    Args:
        out: folder for the result and the checkpoints.
        epochs: passes over the training data; default: the paper's.
        seeds: number of seeds; default: the reproduction's own.
        resume: go on from what lies in `out`.
    """

    out: Path
    epochs: int | None = None
    seeds: int | None = None
    resume: bool = False


@dataclasses.dataclass(frozen=True)
class Reproduction:
    """One experiment of a paper.

    Args:
        name: its name on the command line.
        title: what it shows, in a sentence.
        source: BibTeX keys of the papers.
        claims: the paper's numbers.
        epochs: passes over the training data at full size.
        seeds: number of seeds at full size.
        minutes: how long it takes at full size on two processor cores.
        run: runs it and returns measured values, a list over seeds for each claim's `what`, and details.
        guess: why claims are missed, as we think, besides a training cut short.
    """

    name: str
    title: str
    source: tuple[str, ...]
    claims: tuple[Claim, ...]
    epochs: int
    seeds: int
    minutes: float
    run: Callable[[Options], tuple[Mapping[str, Sequence[float]], dict[str, Any]]]
    guess: str = ""

    @property
    def duration(self) -> str:
        """`minutes` in minutes, hours or days, with two digits."""
        number, unit = self.minutes, "min"
        for length, name in ((60, "h"), (24 * 60, "days")):
            if self.minutes >= 2 * length:
                number, unit = self.minutes / length, name
        return f"{float(f'{number:.2g}'):g} {unit}"


def outcome(reproduction: Reproduction, options: Options) -> dict[str, Any]:
    """Run a reproduction; return the paper's numbers beside ours, the details, and what it was made with."""
    measured, details = reproduction.run(options)
    return {
        "name": reproduction.name,
        "title": reproduction.title,
        "source": list(reproduction.source),
        "command": command(reproduction.name, options),
        "note": reduction(reproduction, options),
        "claims": [_compare(claim, measured[claim.what]) for claim in reproduction.claims if claim.what in measured],
        "versions": versions(),
        "details": details,
    }


def reduction(reproduction: Reproduction, options: Options) -> str:
    """What was left out of the full size, in words; nothing if it was run whole."""
    less = [
        f"{asked} of {full} {what}"
        for what, asked, full in (
            ("epochs", options.epochs, reproduction.epochs),
            ("seeds", options.seeds, reproduction.seeds),
        )
        if asked is not None and asked != full
    ]
    return f"Not run at full size: {' and '.join(less)}." if less else ""


def explanation(reproduction: Reproduction, result: Mapping[str, Any]) -> str:
    """Why claims of a result are missed, as we think; nothing if none is, or if we cannot guess."""
    shorter = "The training was cut short." if "epochs" in result["note"] else ""
    reasons = [reason for reason in (shorter, reproduction.guess) if reason]
    missed = not all(claim["reproduced"] for claim in result["claims"])
    return f"Our guess why: {' '.join(reasons)}" if missed and reasons else ""


def command(name: str, options: Options) -> str:
    """The command line that runs a reproduction with these options."""
    flags = "".join(
        f" --{flag} {value}" for flag in ("epochs", "seeds") if (value := getattr(options, flag)) is not None
    )
    return f"anyprop reproduce run {name}{flags} --out runs/{name}"


def _compare(claim: Claim, values: Sequence[float]) -> dict[str, Any]:
    mean = statistics.fmean(values)
    return {
        **dataclasses.asdict(claim),
        "measured": mean,
        "sd": statistics.stdev(values) if len(values) > 1 else None,
        "seeds": len(values),
        "reproduced": (mean - claim.value if claim.at_most else abs(mean - claim.value)) <= claim.tolerance,
    }


def final_errors(comparison: Comparison) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """The last epoch's test error of every run in %, by rule; and the curves, the mean over seeds."""
    errors: dict[str, list[float]] = {}
    for run in comparison.results["runs"]:
        errors.setdefault(f"{run['rule']} test error", []).append(100 * run["epochs"][-1]["test_error"])
    curves = {
        name: [
            {
                "epoch": epoch[0]["epoch"],
                "test_error": statistics.fmean(record["test_error"] for record in epoch),
                "alignment": _mean_of([record.get("alignment", {}) for record in epoch]),
                "feedback_alignment": _mean_of([record.get("feedback_alignment", {}) for record in epoch]),
            }
            for epoch in zip(*(r["epochs"] for r in run.results["runs"]), strict=True)
        ]
        for name, run in comparison.runs.items()
    }
    return errors, {"settings": comparison.results["settings"], "curves": curves}


def _mean_of(angles: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: round(statistics.fmean(a[name] for a in angles), 2) for name in angles[0]}
