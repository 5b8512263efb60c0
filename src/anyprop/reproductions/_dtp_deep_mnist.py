"""Difference target propagation in a deep net: 784-7x240-10 tanh on MNIST (Lee et al. 2015).

Orthogonal weights, inputs in [0, 1], batches of 100, RMSprop at the published rates, 50,000 images to train on,
the last epoch's test error. In an epoch of difference target propagation the inverses learn on a pass over the
data, and then the layers on another. By a slip, the published code leaves one layer and one inverse as they were
drawn; here all of them learn.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from jaxtyping import PyTree

from .. import data, nets, report
from ..data import Data
from ..rules.exact import Backprop
from ..rules.targets import DifferenceTargetPropagation
from ..training import compare
from ._dtp import optimizer, rmsprop
from ._reproduction import Claim, Options, Reproduction, final_errors

TARGETS = DifferenceTargetPropagation(target_step=0.327736332653, noise=0.359829566008)
RATES = {"layers": 0.0148893490317, "inverses": 0.00501149118237, "backprop": 0.000804436870084}
BATCH = 100


def run(options: Options) -> tuple[Mapping[str, Sequence[float]], dict[str, Any]]:
    """Train both rules."""
    net = partial(nets.mlp, 784, *[240] * 7, 10, activation="tanh", init="orthogonal")
    return against_backprop(REPRODUCTION, options, net, data.load("mnist", validation=10_000), RATES)


def against_backprop(
    reproduction: Reproduction,
    options: Options,
    net: Callable[..., PyTree],
    data: Data,
    rates: Mapping[str, float],
) -> tuple[Mapping[str, Sequence[float]], dict[str, Any]]:
    """Train a network by difference target propagation and by backprop; return the last test errors, and curves.

    Args:
        reproduction: how many epochs and seeds, unless `options` say otherwise.
        options: what the command line asks for.
        net: a function of a `key` that builds the network.
        data: the data.
        rates: learning rates of the `layers`, the `inverses`, and `backprop`.

    Returns:
        Test errors in %, by rule; and, by rule, the curves of errors, which for difference target propagation
        count passes over the data, two an epoch.
    """
    epochs, turn = options.epochs or reproduction.epochs, len(data.train) // BATCH
    contestants = (
        (TARGETS, 2 * epochs, optimizer(rates["layers"], rates["inverses"], turn)),
        (Backprop(), epochs, rmsprop(rates["backprop"])),
    )
    measured: dict[str, Sequence[float]] = {}
    details: dict[str, Any] = {"settings": {}, "curves": {}}
    for rule, passes, learning in contestants:
        comparison = compare(
            [rule],
            net,
            data,
            optimizer=learning,
            epochs=passes,
            batch_size=BATCH,
            seeds=options.seeds or reproduction.seeds,
            out=options.out / rule.card.family,
            resume=options.resume,
            settings={"optimizer": "rmsprop", "learning_rate": rates},
        )
        errors, found = final_errors(comparison)
        ((name, finished),) = comparison.runs.items()
        records = zip(*(each["epochs"] for each in finished.results["runs"]), strict=True)
        for point, epoch in zip(found["curves"][name], records, strict=True):
            point["train_error"] = fmean(record["train_error"] for record in epoch)
        measured |= errors
        details["settings"][name], details["curves"][name] = found["settings"], found["curves"][name]
    draw(details["curves"], epochs, options.out / "curves.png")
    return measured, details


def draw(curves: Mapping[str, Sequence[Mapping[str, Any]]], epochs: int, path: Path) -> None:
    """Plot training and test error by epoch, on a logarithmic axis."""
    runs = []
    for name, curve in curves.items():
        for split in ("train", "test"):
            points = [
                {"epoch": point["epoch"] * epochs / len(curve), "test_error": point[f"{split}_error"] or None}
                for point in curve
            ]
            runs.append({"rule": f"{name}, {split}", "seed": 0, "epochs": points})
    report.plot_learning({"settings": {}, "versions": {}, "runs": runs}, path, named="Error")


REPRODUCTION = Reproduction(
    name="dtp-deep-mnist",
    title="Difference target propagation against backprop, 784-7x240-10 on MNIST",
    source=("lee2015",),
    claims=(
        Claim("difference-target-propagation test error", 1.94, "%", 0.3, "from memory, unverified"),
        Claim("backprop test error", 1.86, "%", 0.3, "from memory, unverified"),
    ),
    epochs=100,
    seeds=3,
    minutes=60.0,
    run=run,
)
