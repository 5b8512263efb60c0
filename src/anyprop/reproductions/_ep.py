"""What the experiments on equilibrium propagation share: nets with a rate of each layer's own, trained one by one."""

import dataclasses
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

import jax
import optax
from jaxtyping import PyTree

from ..contract import Rule
from ..data import Data
from ..training import compare
from ._reproduction import Options, Reproduction, final_errors


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A network as it was trained in a paper.

    Args:
        net: of a `key`, builds the network.
        rule: the rule.
        rates: learning rate of each stage with weights, first to last.
        epochs: passes over the data.
        optimizer: rate -> optimizer; default: plain gradient descent.
        batch_size: examples of a step.
    """

    net: Callable[..., PyTree]
    rule: Rule
    rates: tuple[float, ...]
    epochs: int
    optimizer: Callable[[float], optax.GradientTransformation] = optax.sgd
    batch_size: int = 20


def by_stage(
    rates: Sequence[float], optimizer: Callable[[float], optax.GradientTransformation] = optax.sgd
) -> optax.GradientTransformation:
    """Return an optimizer with a rate of its own for each stage with weights, in the order of the chain."""

    def labels(params: PyTree) -> PyTree:
        names = jax.tree.map_with_path(lambda path, _: _stage(path), params)
        order = sorted(set(jax.tree.leaves(names)))
        if len(order) != len(rates):
            raise ValueError(f"there are {len(rates)} rates for {len(order)} stages with weights: pass one for each")
        return jax.tree.map(order.index, names)

    return optax.partition({i: optimizer(rate) for i, rate in enumerate(rates)}, labels)


def _stage(path: tuple[Any, ...]) -> int:
    """Which stage an array belongs to: feedback weights to the one whose way they go back, a read-out to the last."""
    name = jax.tree_util.keystr(path)
    if ".readout" in name:
        return sys.maxsize
    if match := re.search(r"feedback\[(\d+)\]", name):
        return int(match[1]) + 1
    match = re.search(r"stages\[(\d+)\]", name)
    assert match is not None, "the rates are those of a chain's stages"
    return int(match[1])


def trained(
    reproduction: Reproduction, options: Options, experiments: Mapping[str, Experiment], data: Data
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Train every network for its own epochs, or for those asked for if they are fewer.

    Args:
        reproduction: how many seeds, unless `options` say otherwise.
        options: what the command line asks for; `epochs` is the most that any network gets.
        experiments: by name.
        data: the data.

    Returns:
        `NAME test error` and `NAME training error` of the last epoch in %, over seeds; and the curves.
    """
    measured: dict[str, list[float]] = {}
    details: dict[str, Any] = {"curves": {}, "epochs": {}}
    for name, each in experiments.items():
        epochs = min(each.epochs, options.epochs or each.epochs)
        comparison = compare(
            {name: each.rule},
            each.net,
            data,
            optimizer=by_stage(each.rates, each.optimizer),
            epochs=epochs,
            batch_size=each.batch_size,
            seeds=options.seeds or reproduction.seeds,
            alignment=False,
            out=options.out / name,
            resume=options.resume,
            settings={"learning_rate": list(each.rates)},
        )
        errors, found = final_errors(comparison)
        runs = comparison.runs[name].results["runs"]
        measured |= errors
        measured[f"{name} training error"] = [100 * run["epochs"][-1]["train_error"] for run in runs]
        for point, records in zip(
            found["curves"][name], zip(*(run["epochs"] for run in runs), strict=True), strict=True
        ):
            point["train_error"] = fmean(record["train_error"] for record in records)
            point |= {key: fmean(record["metrics"][key] for record in records) for key in records[0]["metrics"]}
        details["curves"][name] = found["curves"][name]
        details["epochs"][name] = f"{epochs} of {each.epochs}"
    return measured, details
