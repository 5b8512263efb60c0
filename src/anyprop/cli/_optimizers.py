"""Optimizers by name."""

from collections.abc import Callable
from typing import NamedTuple

import optax

from .._checks import choose, fraction, non_negative, positive
from ..contract import Rule


class Optimizer(NamedTuple):
    """How to make an optimizer, the rate to take where none is given, and its one other option."""

    make: Callable[..., optax.GradientTransformation]
    learning_rate: float
    extra: str | None = None
    default: float = 0.0


OPTIMIZERS = {
    "sgd": Optimizer(optax.sgd, 0.1),
    "momentum": Optimizer(optax.sgd, 0.01, "momentum", 0.9),
    "adam": Optimizer(optax.adam, 1e-3),
    "adamw": Optimizer(optax.adamw, 1e-3, "weight_decay", 1e-4),
    "rmsprop": Optimizer(optax.rmsprop, 1e-3),
    "sign-sgd": Optimizer(optax.sign_sgd, 1e-3),
}


def optimizer_of(rule: Rule, name: str | None) -> str:
    """The optimizer that was asked for, or else the one that suits the rule."""
    if name is not None:
        return choose("optimizer", name, OPTIMIZERS)
    return "sgd" if rule.whole_step else "adam"


def default_rate(rule: Rule, name: str | None) -> float:
    """The learning rate where none is given: of the optimizer that was asked for, or else what suits the rule."""
    if name is None and rule.whole_step:
        return 1.0
    return OPTIMIZERS[optimizer_of(rule, name)].learning_rate


def make_optimizer(name: str, learning_rate: float, **extras: float | None) -> optax.GradientTransformation:
    """The optimizer called `name`.

    Args:
        name: one of `OPTIMIZERS`.
        learning_rate: its rate, above 0.
        **extras: `momentum` and `weight_decay`; None where not given.

    Raises:
        ValueError: no optimizer has this name, it does not take an extra that was given, or a number is out
            of its range.
    """
    optimizer = OPTIMIZERS[choose("optimizer", name, OPTIMIZERS)]
    positive("learning_rate", learning_rate)
    for extra, value in extras.items():
        if value is not None and extra != optimizer.extra:
            takers = ", ".join(n for n, o in OPTIMIZERS.items() if o.extra == extra)
            raise ValueError(f"{extra} is not an option of optimizer={name}; pass optimizer={takers} with it")
    if optimizer.extra is None:
        return optimizer.make(learning_rate)
    given = extras.get(optimizer.extra)
    value = optimizer.default if given is None else given
    fraction("momentum", value) if optimizer.extra == "momentum" else non_negative(optimizer.extra, value)
    return optimizer.make(learning_rate, **{optimizer.extra: value})
