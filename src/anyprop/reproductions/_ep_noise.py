"""Equilibrium propagation in noisy units: 784-256-256-10 on MNIST (Laborieux and Zenke 2022).

A weak nudge drowns in noise, and a strong one is biased; on a circle in the complex plane it may be strong. Sigmoids of
slope 1 at one half, discrete time, plain gradient descent at 0.05 on batches of 20, all 60,000 images, the last
epoch's test error. Noise of standard deviation 0.04 goes to every unit at every step of every phase; the trained nets
are tested without.

Our own: squared error; Glorot-uniform weights at half of their size, as with all of it these nets do not come to rest
in discrete time; and phases of 50 and 20 steps, by which the initial nets have settled, instead of 350 each.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import jax
from jaxtyping import Array, Key

from .. import data, nets
from ..rules.equilibrium import HolomorphicEquilibriumPropagation
from ._ep import Experiment, trained
from ._reproduction import Claim, Options, Reproduction

NOISE = 0.04

PUBLISHED = {
    "beta 0.1": (98.14, 97.94, 98.00),
    "beta 0.4": (97.56, 97.66, 97.72),
    "holomorphic": (97.76, 97.93, 97.32),
    "beta 0.1 with noise": (10.0,),
    "beta 0.4 with noise": (95.99, 96.84, 96.41),
    "holomorphic with noise": (98.12, 97.74, 97.55),
}
"""Test accuracies in %, a seed each. Centred equilibrium propagation is the case of two points."""


def experiment(name: str) -> Experiment:
    """A row of the table."""
    rule = HolomorphicEquilibriumPropagation(
        radius=0.1 if "0.1" in name else 0.4,
        points=10 if "holomorphic" in name else 2,
        noise=NOISE if "noise" in name else 0.0,
        free_steps=50,
        nudged_steps=20,
        relaxation="fixed-point",
        network="convergent",
    )
    return Experiment(net, rule, (0.05, 0.05, 0.05), 50)


def net(*, key: Key[Array, ""]) -> nets.Chain:
    """784-256-256-10, with weights that let it come to rest."""
    units = "steep-sigmoid"
    chain = nets.mlp(784, 256, 256, 10, activation=units, output=units, init="glorot-uniform", key=key)
    return jax.tree.map(lambda w: 0.5 * w, chain)


def run(options: Options) -> tuple[Mapping[str, Sequence[float]], dict[str, Any]]:
    """Train all nets."""
    return trained(REPRODUCTION, options, {name: experiment(name) for name in PUBLISHED}, data.load("mnist"))


REPRODUCTION = Reproduction(
    name="ep-noise",
    title="Centred and holomorphic equilibrium propagation with and without neuronal noise, 784-256-256-10 on MNIST",
    source=("laborieux2022",),
    claims=tuple(
        Claim(f"{name} test error", 100 - fmean(accuracies), "%", 5.0 if len(accuracies) == 1 else 0.5, "authors' code")
        for name, accuracies in PUBLISHED.items()
    ),
    epochs=50,
    seeds=3,
    minutes=1500.0,
    run=run,
)
