"""Numbers as text, and the result in a few sentences."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]

NOTHING = "–"
"""What stands where a number is missing."""

_COUNT = (
    *("no", "one", "two", "three", "four", "five", "six"),
    *("seven", "eight", "nine", "ten", "eleven", "twelve"),
)


def percent(fraction: float) -> str:
    """0.01923 -> "1.92%"."""
    return f"{100 * fraction:.2f}%" if math.isfinite(fraction) else NOTHING


def error_with_spread(record: Record) -> str:
    """The test error of a summary record, such as "1.92 ± 0.05%"."""
    mean, sd = record["test_error_mean"], record["test_error_sd"]
    return f"{100 * mean:.2f} ± {100 * sd:.2f}%" if math.isfinite(sd) else percent(mean)


def rate(steps_per_second: float) -> str:
    """812.4 -> "812"; three digits where the rate is small."""
    if not math.isfinite(steps_per_second):
        return NOTHING
    return f"{steps_per_second:,.0f}" if steps_per_second >= 100 else f"{steps_per_second:.3g}"


def ratio(value: float) -> str:
    """0.9312 -> "0.93×"."""
    return f"{value:.2f}×" if math.isfinite(value) else NOTHING


def angle(degrees: float) -> str:
    """31.42 -> "31.4°"."""
    return f"{degrees:.1f}°" if math.isfinite(degrees) else NOTHING


def duration(seconds: float) -> str:
    """93.2 -> "1 min 33 s"."""
    if not math.isfinite(seconds):
        return NOTHING
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def listing(names: Sequence[str]) -> str:
    """["a", "b", "c"] -> "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def count(n: int, noun: str) -> str:
    """(3, "rule") -> "three rules"."""
    return f"{_COUNT[n] if n < len(_COUNT) else n} {noun}{'' if n == 1 else 's'}"


def reading(records: Sequence[Record]) -> list[str]:
    """Return what happened, in sentences: the best rule, who kept up with it, the price, and what failed.

    Two rules count as level if their mean test errors differ by no more than two standard errors of that
    difference, sqrt(sd_a^2 / n_a + sd_b^2 / n_b); with one seed a rule nothing is called level.
    """
    ranked = by_error(records)
    if not ranked:
        return ["No run ended with a finite test error."]
    best, worst = ranked[0], ranked[-1]
    spread = f" (mean ± standard deviation of {count(best['finished'], 'seed')})" if _has_spread(best) else ""
    if len(ranked) == 1:
        return [
            f"{best['rule']} ended with a test error of {error_with_spread(best)}{spread}.",
            *_failures(records),
        ]
    sentences = [f"The lowest test error is that of {best['rule']}: {error_with_spread(best)}{spread}."]
    level = [r["rule"] for r in ranked[1:] if _level(best, r)]
    if not any(_has_spread(r) for r in ranked):
        sentences.append("With one seed a rule, small differences may be chance.")
    elif level:
        sentences.append(f"Within two standard errors of it: {listing(level)}.")
    else:
        sentences.append("No other rule ended within two standard errors of it.")
    rest = [r for r in ranked[1:] if r["rule"] not in level]
    if rest and (len(rest) > 1 or level):
        sentences.append(f"Next came {rest[0]['rule']} with {percent(rest[0]['test_error_mean'])}.")
    if any(r["rule"] == "backprop" for r in rest[1:-1]):
        backprop = next(r for r in rest if r["rule"] == "backprop")
        sentences.append(f"Backprop came to {percent(backprop['test_error_mean'])}.")
    if len(rest) > 1:
        sentences.append(f"Furthest behind: {worst['rule']} with {percent(worst['test_error_mean'])}.")
    return [*sentences, *_price(records), *_failures(records)]


def _has_spread(record: Record) -> bool:
    return math.isfinite(record["test_error_sd"])


def _level(a: Record, b: Record) -> bool:
    variance = sum(r["test_error_sd"] ** 2 / r["finished"] for r in (a, b))
    return abs(a["test_error_mean"] - b["test_error_mean"]) <= 2 * math.sqrt(variance)


def _price(records: Sequence[Record]) -> list[str]:
    others = [r for r in records if math.isfinite(r["ratio_to_backprop"]) and r["rule"] != "backprop"]
    if not others:
        return []
    slow = min(others, key=lambda r: r["ratio_to_backprop"])
    who = f"the slowest, {slow['rule']}," if len(others) > 1 else slow["rule"]
    return [f"For each step of backprop, {who} took {slow['ratio_to_backprop']:.2f} in the same time."]


def _failures(records: Sequence[Record]) -> list[str]:
    return [
        f"{r['seeds'] - r['finished']} of {r['seeds']} seeds of {r['rule']} ended without a finite test "
        "error and are left out of its mean."
        for r in records
        if r["finished"] < r["seeds"]
    ]


def by_error(records: Sequence[Record]) -> list[Record]:
    """Return the records that have a test error, best first."""
    return sorted((r for r in records if math.isfinite(r["test_error_mean"])), key=lambda r: r["test_error_mean"])
