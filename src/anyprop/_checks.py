"""The checks of arguments that every room uses: one wording, one place, before anything is compiled."""

import difflib
import math
from collections.abc import Iterable, Sequence

import numpy as np

Integer = int | np.integer
Real = float | np.floating | Integer
"""Numbers of Python and of NumPy; no arrays, which cannot be hashed, even of one number."""


def choose(argument: str, value: str, options: Iterable[str]) -> str:
    """Return `value` if it is one of `options`; else raise an error with the nearest names."""
    options = list(options)
    if value in options:
        return value
    near = difflib.get_close_matches(str(value), options, n=3, cutoff=0.4) or sorted(options)
    raise ValueError(f"{argument}={value!r} is unknown; pass one of: {', '.join(near)}")


def positive(argument: str, value: Real) -> None:
    """Raise unless `value` is a finite number above zero."""
    if not (isinstance(value, Real) and math.isfinite(value) and value > 0):
        raise ValueError(f"{argument} must be a finite number above zero, not {_told(value)}")


def non_negative(argument: str, value: Real) -> None:
    """Raise unless `value` is a finite number, zero or above."""
    if not (isinstance(value, Real) and math.isfinite(value) and value >= 0):
        raise ValueError(f"{argument} must be a finite number, zero or above, not {_told(value)}")


def fraction(argument: str, value: Real) -> None:
    """Raise unless 0 <= `value` < 1."""
    if not (isinstance(value, Real) and 0 <= value < 1):
        raise ValueError(f"{argument} must be at least 0 and below 1, not {_told(value)}")


def count(argument: str, value: Integer, *, least: int = 1) -> None:
    """Raise unless `value` is an integer of at least `least`."""
    if not (isinstance(value, Integer) and not isinstance(value, bool) and value >= least):
        raise ValueError(f"{argument} must be an integer of at least {least}, not {_told(value)}")


def shape(argument: str, value: Sequence[int]) -> tuple[int, ...]:
    """Return `value` as a tuple; raise unless it is a sequence of integers of at least 1."""
    sized = isinstance(value, Sequence) and not isinstance(value, str)
    if not (sized and all(isinstance(n, Integer) and not isinstance(n, bool) and n >= 1 for n in value)):
        raise ValueError(f"{argument} must be a tuple of sizes of at least 1, such as (28, 28, 1), not {value!r}")
    return tuple(value)


def _told(value: object) -> str:
    """`value` as an error tells it; an array may hold the right number, so of that also what to pass instead."""
    array = hasattr(value, "__array__") and not isinstance(value, np.generic)
    return f"{value!r}; pass a Python number, not an array" if array else repr(value)
