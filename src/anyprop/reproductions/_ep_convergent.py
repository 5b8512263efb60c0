"""Equilibrium propagation in energy-based and in discrete-time networks on MNIST (Ernoult et al. 2019).

The published rates, steps and nudges; batches of 20, 60,000 images to train on, the last epoch's test error. Units are
sigmoids of slope 1 at one half (`steep-sigmoid`). Two things are not known from the paper: here the nudge's sign is
drawn for each batch, and weights start uniform in +-1/sqrt(fan-in), PyTorch's default. With larger weights the
discrete-time nets end in cycles of two states.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from .. import data, nets
from ..rules.equilibrium import EquilibriumPropagation
from ._ep import Experiment, trained
from ._reproduction import Claim, Options, Reproduction


def _net(hidden: int) -> partial:
    units = {"activation": "steep-sigmoid", "output": "steep-sigmoid", "init": "uniform-by-fan-in"}
    return partial(nets.mlp, 784, *[512] * hidden, 10, **units)


def energy_based(free: int, nudged: int, rates: tuple[float, ...], epochs: int) -> Experiment:
    """Hopfield networks in continuous time, in steps of 0.2."""
    rule = EquilibriumPropagation(0.5, "random-sign", nudged_steps=nudged, free_steps=free, step_size=0.2)
    return Experiment(_net(len(rates) - 1), rule, rates, epochs)


def prototypical(free: int, nudged: int, beta: float, rates: tuple[float, ...], epochs: int) -> Experiment:
    """Convergent networks in discrete time."""
    rule = EquilibriumPropagation(
        beta, "random-sign", nudged_steps=nudged, free_steps=free, relaxation="fixed-point", network="convergent"
    )
    return Experiment(_net(len(rates) - 1), rule, rates, epochs)


EXPERIMENTS = {
    "EB-1h": energy_based(100, 12, (0.1, 0.05), 30),
    "EB-2h": energy_based(400, 40, (0.4, 0.1, 0.01), 50),
    "P-1h": prototypical(40, 15, 0.1, (0.08, 0.04), 30),
    "P-2h": prototypical(100, 20, 0.5, (0.2, 0.05, 0.005), 50),
    "P-3h": prototypical(180, 20, 0.5, (0.2, 0.05, 0.01, 0.002), 100),
}

PUBLISHED = {"EB-1h": 2.06, "EB-2h": 2.01, "P-1h": 2.00, "P-2h": 1.95, "P-3h": 2.01}


def run(options: Options) -> tuple[Mapping[str, Sequence[float]], dict[str, Any]]:
    """Train all nets."""
    return trained(REPRODUCTION, options, EXPERIMENTS, data.load("mnist"))


REPRODUCTION = Reproduction(
    name="ep-convergent",
    title="Equilibrium propagation in continuous and in discrete time, one to three hidden layers of 512 on MNIST",
    source=("ernoult2019",),
    claims=tuple(
        Claim(f"{net} test error", error, "%", 0.3, "from memory, unverified") for net, error in PUBLISHED.items()
    ),
    epochs=100,
    seeds=3,
    minutes=1500.0,
    run=run,
)
