"""Equilibrium propagation with few free steps, from zero and from a learned forward pass (O'Connor et al. 2019).

784-500-10 with 4 free steps and 784-500-500-10 with 20, hard sigmoids, batches of 20, a nudge of random sign in every
batch, and no state kept from epoch to epoch: plain equilibrium propagation, and initialised. Published is that plain
equilibrium propagation fails with so few steps and the initialised one converges; the thresholds are our own. The
network's nudge and rates are those of Scellier and Bengio 2017 (in units of our cost, see `EquilibriumPropagation`);
the rate of the forward pass is chosen here.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import optax
from jaxtyping import PyTree

from .. import data, nets
from ..rules.equilibrium import EquilibriumPropagation, InitializedEquilibriumPropagation
from ..training import compare
from ._ep import by_stage
from ._ep_mnist import SCELLIER
from ._reproduction import Claim, Options, Reproduction, final_errors

FORWARD_RATE = 0.005


@dataclasses.dataclass(frozen=True)
class Network:
    """One of the networks: its layers, its nudge, the steps of its phases, and a rate for each layer."""

    sizes: tuple[int, ...]
    beta: float
    free: int
    nudged: int
    rates: tuple[float, ...]


NETWORKS = {
    "784-500-10": Network((784, 500, 10), 1.0, 4, 4, (0.2, 0.1)),
    "784-500-500-10": Network((784, 500, 500, 10), 2.0, 20, 6, (0.8, 0.2, 0.02)),
}


def optimizer(rates: tuple[float, ...]) -> optax.GradientTransformation:
    """A rate for each layer of the network, and one for the forward pass."""

    def labels(params: PyTree) -> PyTree:
        return jax.tree.map_with_path(
            lambda path, _: "forward" if ".forward" in jax.tree_util.keystr(path) else "network", params
        )

    return optax.partition({"network": by_stage(rates), "forward": optax.sgd(FORWARD_RATE)}, labels)


def run(options: Options) -> tuple[Mapping[str, Sequence[float]], dict[str, Any]]:
    """Train both networks in both ways; the errors are those of the last epoch."""
    mnist = data.load("mnist", validation=10_000)
    measured: dict[str, list[float]] = {}
    details: dict[str, Any] = {}
    for name, net in NETWORKS.items():
        steps: dict[str, Any] = {"nudged_steps": net.nudged, "free_steps": net.free}
        rules = {
            f"{name} initialised": InitializedEquilibriumPropagation(net.beta, **steps),
            f"{name} plain": EquilibriumPropagation(net.beta, "random-sign", **steps),
        }
        comparison = compare(
            rules,
            partial(nets.mlp, *net.sizes, **SCELLIER),
            mnist,
            optimizer=dict(zip(rules, (optimizer(net.rates), by_stage(net.rates)), strict=True)),
            epochs=options.epochs or REPRODUCTION.epochs,
            batch_size=20,
            seeds=options.seeds or REPRODUCTION.seeds,
            alignment=False,
            out=options.out / name,
            resume=options.resume,
            settings={"optimizer": "sgd", "learning_rate": [*net.rates, FORWARD_RATE]},
        )
        errors, details[name] = final_errors(comparison)
        measured |= errors
        pairs = zip(errors[f"{name} initialised test error"], errors[f"{name} plain test error"], strict=True)
        measured[f"{name} initialised error over plain"] = [own / plain for own, plain in pairs]
    return measured, details


REPRODUCTION = Reproduction(
    name="initialized-ep",
    title="Equilibrium propagation with 4 and 20 free steps, from zero and from a learned forward pass, on MNIST",
    source=("oconnor2019", "scellier2017"),
    claims=tuple(
        claim
        for name in NETWORKS
        for claim in (
            Claim(f"{name} initialised test error", 3.0, "%", 0.0, "own target", at_most=True),
            Claim(f"{name} initialised error over plain", 1.0, "ratio", 0.0, "own target", at_most=True),
        )
    ),
    epochs=25,
    seeds=3,
    minutes=90.0,
    run=run,
)
