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

from .. import data, nets, report
from ..data import Data
from ..nets import Chain
from ..rules.exact import Backprop
from ..rules.targets import DifferenceTargetPropagation
from ._dtp import optimizer, rmsprop
from ._reproduction import Claim, Options, Reproduction
from ._tuning import Method, summary, train

TARGETS = DifferenceTargetPropagation(target_step=0.327736332653, noise=0.359829566008)
INVERSES = 0.00501149118237
"""Learning rate of the inverses."""
RATES = {"difference-target-propagation": 0.0148893490317, "backprop": 0.000804436870084}
"""Learning rates of the layers."""
BATCH = 100


def methods(tried: Mapping[str, tuple[float, ...]]) -> dict[str, Method]:
    """Both rules.

    Args:
        tried: the learning rates of the layers that are tried, by rule.
    """
    return {
        "difference-target-propagation": Method(
            lambda rate: TARGETS,
            lambda rate, steps: optimizer(rate, INVERSES, steps),
            tried["difference-target-propagation"],
            passes=2,
        ),
        "backprop": Method(lambda rate: Backprop(), lambda rate, steps: rmsprop(rate), tried["backprop"]),
    }


def run(options: Options) -> tuple[Mapping[str, Sequence[float]], dict[str, Any]]:
    """Train both rules."""
    net = partial(nets.mlp, 784, *[240] * 7, 10, activation="tanh", init="orthogonal")
    published = methods({name: (rate,) for name, rate in RATES.items()})
    return against_backprop(REPRODUCTION, options, net, data.load("mnist", validation=10_000), published, RATES)


def against_backprop(
    reproduction: Reproduction,
    options: Options,
    net: Callable[..., Chain],
    data: Data,
    methods: Mapping[str, Method],
    rates: Mapping[str, float],
) -> tuple[Mapping[str, Sequence[float]], dict[str, Any]]:
    """Train a network by difference target propagation and by backprop; return the last test errors, and curves.

    Args:
        reproduction: how many epochs and seeds, unless `options` say otherwise.
        options: what the command line asks for.
        net: a function of a `key` that builds the network.
        data: the data.
        methods: both rules.
        rates: learning rate of each.

    Returns:
        Test errors in %, by rule; and, by rule, the curves of errors, which for difference target propagation
        count passes over the data, two an epoch.
    """
    epochs, seeds = options.epochs or reproduction.epochs, options.seeds or reproduction.seeds
    trained = train(methods, rates, net, data, options, epochs=epochs, seeds=seeds, batch_size=BATCH, alignment=True)
    measured, details = summary(trained)
    for name, (_, comparison) in trained.items():
        records = zip(*(run["epochs"] for run in comparison.results["runs"]), strict=True)
        for point, epoch in zip(details["curves"][name], records, strict=True):
            point["train_error"] = fmean(record["train_error"] for record in epoch)
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
