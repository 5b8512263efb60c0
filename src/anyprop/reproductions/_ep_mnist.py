"""Equilibrium propagation on MNIST: a Hopfield network with one hidden layer (Scellier and Bengio 2017).

Hard sigmoids, Glorot-uniform weights, inputs in [0, 1], batches of 20, step size 0.5, persistent particles, a nudge of
random sign in every batch, 50,000 images to train on. The published curves are of validation and training; here the
error is that of the last epoch on the test images, from a free phase that starts at zero.

The published beta is that of the authors' code: it weighs ||y - d||^2, twice the cost here, and divides the update.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from .. import data, nets
from ..rules.equilibrium import EquilibriumPropagation
from ._ep import Experiment, trained
from ._reproduction import Claim, Options, Reproduction

SCELLIER = {"activation": "hard-sigmoid", "output": "hard-sigmoid", "init": "glorot-uniform"}


def hopfield(
    name: str,
    hidden: int,
    beta: float,
    *,
    free: int,
    nudged: int,
    rates: tuple[float, ...],
    epochs: int,
    minutes: float,
) -> Reproduction:
    """A published net with so many hidden layers of 500; beta and rates as in the authors' code, for ||y - d||^2."""
    sizes = (784, *[500] * hidden, 10)
    net = "-".join(map(str, sizes))
    rule = EquilibriumPropagation(2 * beta, "random-sign", nudged_steps=nudged, particles=True, free_steps=free)
    experiment = Experiment(partial(nets.mlp, *sizes, **SCELLIER), rule, tuple(2 * rate for rate in rates), epochs)

    def run(options: Options) -> tuple[Mapping[str, Sequence[float]], dict[str, Any]]:
        """Train the net."""
        return trained(reproduction, options, {net: experiment}, data.load("mnist", validation=10_000))

    reproduction = Reproduction(
        name=name,
        title=f"Equilibrium propagation in a Hopfield network, {net} on MNIST",
        source=("scellier2017",),
        claims=(
            Claim(f"{net} test error", 2.5, "%", 0.5, "paper"),
            Claim(f"{net} training error", 0.0, "%", 0.005, "paper"),
        ),
        epochs=epochs,
        seeds=3,
        minutes=minutes,
        run=run,
        guess=(
            "The training error is counted over the last pass, while the network learns; with two hidden layers it "
            "was still falling when the published number of epochs was over."
        ),
    )
    return reproduction


REPRODUCTION = hopfield("ep-mnist", 1, 0.5, free=20, nudged=4, rates=(0.1, 0.05), epochs=25, minutes=10.0)
