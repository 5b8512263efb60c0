"""Predictive coding on MNIST: 784-600-600-10 with sigmoids (Whittington and Bogacz 2017).

The output is clamped, with variance 1; 20 inference steps, which do not converge; Adam, batches of 20. Published is a
validation error of 1.7 to 1.8 %, as of a network of the same size trained by backprop, and no training error. Not
known, and chosen here: the rate, the first step's size, the number of epochs, and the initial weights.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import optax

from .. import data, nets
from ..rules.equilibrium import PredictiveCoding
from ..rules.exact import Backprop
from ..training import compare
from ._reproduction import Claim, Options, Reproduction, final_errors

RATE = 1e-3


def run(options: Options) -> tuple[Mapping[str, Sequence[float]], dict[str, Any]]:
    """Train by predictive coding and by backprop; the errors are those of the last epoch."""
    comparison = compare(
        {"predictive-coding": PredictiveCoding(1.0, "clamped", steps=20), "backprop": Backprop(loss="squared-error")},
        partial(nets.mlp, 784, 600, 600, 10, activation="sigmoid"),
        data.load("mnist", validation=10_000),
        optimizer=optax.adam(RATE),
        epochs=options.epochs or REPRODUCTION.epochs,
        batch_size=20,
        seeds=options.seeds or REPRODUCTION.seeds,
        alignment=False,
        out=options.out,
        resume=options.resume,
        settings={"optimizer": "adam", "learning_rate": RATE},
    )
    measured, details = final_errors(comparison)
    for name, trained in comparison.runs.items():
        runs = trained.results["runs"]
        measured[f"{name} training error"] = [100 * run["epochs"][-1]["train_error"] for run in runs]
    return measured, details


REPRODUCTION = Reproduction(
    name="pc-mnist",
    title="Predictive coding against backprop, 784-600-600-10 on MNIST",
    source=("whittington2017",),
    claims=(
        Claim("predictive-coding test error", 1.75, "%", 0.15, "paper"),
        Claim("predictive-coding training error", 0.0, "%", 0.01, "paper"),
        Claim("backprop test error", 1.75, "%", 0.15, "paper"),
    ),
    epochs=40,
    seeds=3,
    minutes=90.0,
    run=run,
)
