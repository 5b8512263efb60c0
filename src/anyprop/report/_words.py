"""Numbers as text, and the result in a few sentences."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

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


def loss(value: float) -> str:
    """0.081234 -> "0.08123"."""
    return f"{value:.4g}" if math.isfinite(value) else NOTHING


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


class Measure(NamedTuple):
    """What rules are judged by.

    Args:
        key: `"test_error"`, or `"test_loss"` where no errors are counted.
    """

    key: str

    @classmethod
    def of(cls, records: Sequence[Record]) -> "Measure":
        """The measure of a summary's records."""
        found = (key for key in ("test_error", "test_loss") if any(math.isfinite(r[f"{key}_mean"]) for r in records))
        return cls(next(found, "test_error"))

    @property
    def name(self) -> str:
        """In words, such as "test error"."""
        return self.key.replace("_", " ")

    def mean(self, record: Record) -> float:
        """Of a record, over its seeds."""
        return record[f"{self.key}_mean"]

    def sd(self, record: Record) -> float:
        """Standard deviation over seeds."""
        return record[f"{self.key}_sd"]

    def number(self, value: float) -> str:
        """A value as text."""
        return percent(value) if self.key == "test_error" else loss(value)

    def with_spread(self, record: Record) -> str:
        """A record's mean, and its spread if it has one, such as "1.92 ± 0.05%"."""
        mean, sd = self.mean(record), self.sd(record)
        if not math.isfinite(sd):
            return self.number(mean)
        return f"{100 * mean:.2f} ± {100 * sd:.2f}%" if self.key == "test_error" else f"{mean:.4g} ± {sd:.2g}"

    def ranked(self, records: Sequence[Record]) -> list[Record]:
        """The records that have it, best first."""
        return sorted((r for r in records if math.isfinite(self.mean(r))), key=self.mean)


def reading(records: Sequence[Record]) -> list[str]:
    """Return what happened, in sentences: the best rule, who kept up with it, the price, and what failed.

    Two rules count as level if their means differ by no more than two standard errors of that difference,
    sqrt(sd_a^2 / n_a + sd_b^2 / n_b); with one seed a rule nothing is called level.
    """
    measure = Measure.of(records)
    ranked = measure.ranked(records)
    if not ranked:
        return ["No run ended with a finite test error."]
    best, worst = ranked[0], ranked[-1]
    known = math.isfinite(measure.sd(best))
    spread = f" (mean ± standard deviation of {count(best['finished'], 'seed')})" if known else ""
    if len(ranked) == 1:
        return [
            f"{best['rule']} ended with a {measure.name} of {measure.with_spread(best)}{spread}.",
            *_failures(records, measure),
        ]
    sentences = [f"The lowest {measure.name} is that of {best['rule']}: {measure.with_spread(best)}{spread}."]
    level = [r["rule"] for r in ranked[1:] if _level(best, r, measure)]
    if not any(math.isfinite(measure.sd(r)) for r in ranked):
        sentences.append("With one seed a rule, small differences may be chance.")
    elif level:
        sentences.append(f"Within two standard errors of it: {listing(level)}.")
    else:
        sentences.append("No other rule ended within two standard errors of it.")
    rest = [r for r in ranked[1:] if r["rule"] not in level]
    if rest and (len(rest) > 1 or level):
        sentences.append(f"Next came {rest[0]['rule']} with {measure.number(measure.mean(rest[0]))}.")
    if any(r["rule"] == "backprop" for r in rest[1:-1]):
        backprop = next(r for r in rest if r["rule"] == "backprop")
        sentences.append(f"Backprop came to {measure.number(measure.mean(backprop))}.")
    if len(rest) > 1:
        sentences.append(f"Furthest behind: {worst['rule']} with {measure.number(measure.mean(worst))}.")
    return [*sentences, *_price(records), *_failures(records, measure)]


def _level(a: Record, b: Record, measure: Measure) -> bool:
    variance = sum(measure.sd(r) ** 2 / r["finished"] for r in (a, b))
    return abs(measure.mean(a) - measure.mean(b)) <= 2 * math.sqrt(variance)


def _price(records: Sequence[Record]) -> list[str]:
    others = [r for r in records if math.isfinite(r["ratio_to_backprop"]) and r["rule"] != "backprop"]
    if not others:
        return []
    slow = min(others, key=lambda r: r["ratio_to_backprop"])
    who = f"the slowest, {slow['rule']}," if len(others) > 1 else slow["rule"]
    return [f"For each step of backprop, {who} took {slow['ratio_to_backprop']:.2f} in the same time."]


def _failures(records: Sequence[Record], measure: Measure) -> list[str]:
    return [
        f"{r['seeds'] - r['finished']} of {r['seeds']} seeds of {r['rule']} ended without a finite {measure.name} "
        "and are left out of its mean."
        for r in records
        if r["finished"] < r["seeds"]
    ]
