"""Equilibrium propagation in Hopfield networks of two and three hidden layers on MNIST (Scellier and Bengio 2017).

As `ep-mnist`, for the published 60 and 500 epochs.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from .. import data
from ._ep import trained
from ._ep_mnist import claims, hopfield
from ._reproduction import Options, Reproduction

EXPERIMENTS = {
    "784-500-500-10": hopfield(2, 1.0, 100, 6, (0.4, 0.1, 0.01), 60),
    "784-500-500-500-10": hopfield(3, 1.0, 500, 8, (0.128, 0.032, 0.008, 0.002), 500),
}


def run(options: Options) -> tuple[Mapping[str, Sequence[float]], dict[str, Any]]:
    """Train both nets."""
    return trained(REPRODUCTION, options, EXPERIMENTS, data.load("mnist", validation=10_000))


REPRODUCTION = Reproduction(
    name="ep-mnist-deep",
    title="Equilibrium propagation in Hopfield networks of two and three hidden layers on MNIST",
    source=("scellier2017",),
    claims=claims(EXPERIMENTS),
    epochs=500,
    seeds=3,
    minutes=5000.0,
    run=run,
)
