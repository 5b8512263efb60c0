"""How methods get their settings before they are compared: each on as many values and with as large a budget.

A method has one setting. The best is that with the lowest validation error after ten passes over the tuning data, one
seed. (After two, rates win with which a longer training comes apart.) `at_most` is for a training that may come apart
all the same, its loss infinite or at last higher than in the first pass: it starts anew with the next smaller setting.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import optax

from .._files import write_json
from ..contract import Rule
from ..data import Data
from ..nets import Chain
from ..training import Comparison, Diverged, compare, fit
from ._reproduction import Options, final_errors

Trained = TypeVar("Trained")

TUNED = 10
"""Passes over the tuning data after which a setting is judged."""


@dataclasses.dataclass(frozen=True)
class Method:
    """A rule and its optimizer, as functions of one setting.

    Args:
        rule: setting -> rule.
        optimizer: (setting, steps a pass) -> optimizer.
        grid: settings to try, one apart from the next by the same factor.
        whole: whether a step takes the whole training set.
        passes: passes over the data that it calls an epoch.
    """

    rule: Callable[[float], Rule]
    optimizer: Callable[[float, int], optax.GradientTransformation]
    grid: tuple[float, ...]
    whole: bool = False
    passes: int = 1

    def examples(self, data: Data, batch_size: int) -> int:
        """How many examples a step takes."""
        return len(data.train) if self.whole else batch_size


def tuned(
    methods: Mapping[str, Method], net: Callable[..., Chain], tuning: Data, batch_size: int, options: Options
) -> dict[str, float]:
    """The best setting of every method, written down as they come, so that a resumed run need not tune again."""
    path = options.out / "settings.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    best = json.loads(path.read_text()) if options.resume and path.exists() else {}
    for name, method in methods.items():
        if name not in best:
            best[name] = tune(method, net, tuning, batch_size)
            write_json(path, best)
    return best


def tune(method: Method, net: Callable[..., Chain], tuning: Data, batch_size: int) -> float:
    """The setting with the lowest validation error after `TUNED` passes."""

    def error(setting: float) -> float:
        size = method.examples(tuning, batch_size)
        try:
            run = fit(
                method.rule(setting),
                net,
                tuning,
                optimizer=method.optimizer(setting, len(tuning.train) // size),
                epochs=TUNED,
                batch_size=size,
                alignment=False,
                progress=False,
            )
        except Diverged:
            return 1.0
        return run.records[-1]["validation_error"]

    return min(method.grid, key=error)


def train(
    methods: Mapping[str, Method],
    settings: Mapping[str, float],
    net: Callable[..., Chain],
    data: Data,
    options: Options,
    *,
    epochs: int,
    seeds: int,
    batch_size: int,
    alignment: bool = False,
) -> dict[str, tuple[float, Comparison]]:
    """Train every method at its setting, or at the next smaller one with which it does not come apart.

    Args:
        methods: by name.
        settings: the best of each method.
        net: of a `key`, builds the network.
        data: what to train and test on.
        options: of the command line; a run is written below `options.out`.
        epochs: passes over the data, or for a method that makes several of them an epoch, so many times as many.
        seeds: number of seeds.
        batch_size: examples of a step, for methods that do not take all of them.
        alignment: whether to measure angles to the gradient.

    Returns:
        Of every method the setting that it was trained at, and its runs.
    """
    trained = {}
    for name, method in methods.items():

        def run(setting: float, name: str = name, method: Method = method) -> Comparison:
            size = method.examples(data, batch_size)
            return compare(
                {name: method.rule(setting)},
                net,
                data,
                optimizer=method.optimizer(setting, len(data.train) // size),
                epochs=method.passes * epochs,
                batch_size=size,
                seeds=seeds,
                alignment=alignment,
                out=options.out / f"{name}-{setting:g}",
                resume=options.resume,
                settings={"learning_rate": setting},
            )

        trained[name] = at_most(method, settings[name], run, rises)
    return trained


def summary(trained: Mapping[str, tuple[float, Comparison]]) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Last test errors by method, in %, over seeds; and details: settings, curves, and the settings of `compare`."""
    measured: dict[str, list[float]] = {}
    details: dict[str, Any] = {"settings": {}, "curves": {}, "training": {}}
    for name, (setting, comparison) in trained.items():
        errors, found = final_errors(comparison)
        measured |= errors
        details["settings"][name] = setting
        details["curves"] |= found["curves"]
        details["training"][name] = found["settings"]
    return measured, details


def at_most(
    method: Method, setting: float, run: Callable[[float], Trained], worse: Callable[[Trained], bool]
) -> tuple[float, Trained]:
    """Train at a setting or, where that comes apart, at the next smaller one that was tried, and so on.

    Args:
        method: whose settings.
        setting: the first to train at.
        run: trains at a setting; `Diverged` if the loss becomes infinite.
        worse: whether a training has come apart though its loss is finite. At the smallest setting it counts all the
            same.

    Returns:
        The setting that was trained at, and what `run` returned.

    Raises:
        Diverged: the loss becomes infinite even at the smallest setting.
    """
    settings = sorted(each for each in method.grid if each <= setting)
    while True:
        setting = settings.pop()
        try:
            trained = run(setting)
        except Diverged:
            if not settings:
                raise
        else:
            if not (settings and worse(trained)):
                return setting, trained


def rises(comparison: Comparison) -> bool:
    """Whether any seed's training loss is higher in the last pass than in the first."""
    losses = [[epoch["train_loss"] for epoch in run["epochs"]] for run in comparison.results["runs"]]
    return any(each[-1] > each[0] for each in losses)
