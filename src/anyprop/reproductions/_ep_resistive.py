"""Equilibrium propagation in nonlinear resistive networks with one hidden layer, on MNIST (Scellier 2024).

Model DRN-XS, 784(x2)-100-10; DRN-1H, with 1024 hidden nodes, is `_ep_resistive_1024`.

The authors' settings: pixels in [0, 1] as 100 V (480 V), four exact sweeps a phase, centred nudges of 1, batches of 4,
plain descent with a rate that falls by one percent an epoch, conductances kept at 0 or above. Their biases are currents
of either sign, drawn by no resistor; here, as in Kendall et al. 2020, they are conductances to sources at 1 V and -1 V.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import optax
from jaxtyping import Array, Key

from .. import data
from ..energies import Resistive, write_conductances
from ..rules.equilibrium import EquilibriumPropagation
from ..training import fit
from ._reproduction import Claim, Options, Reproduction

BATCH = 4
RATE = 0.006
RULE = EquilibriumPropagation(1.0, relaxation="sweeps", free_steps=4, nudged_steps=4)


def optimizer(examples: int) -> optax.GradientTransformation:
    """Descent whose rate falls by one percent after each pass over so many examples."""
    rate = optax.exponential_decay(RATE, examples // BATCH, 0.99, staircase=True)
    return optax.chain(optax.sgd(rate), write_conductances())


def network(*, hidden: int = 100, gain: float = 100.0, key: Key[Array, ""]) -> Resistive:
    """784(x2)-hidden-10."""
    return Resistive(784, hidden, 10, gain=gain, key=key)


def circuit(
    name: str, hidden: int, *, gain: float, published: tuple[float, float], epochs: int, minutes: float
) -> Reproduction:
    """A published network, its inputs amplified by `gain`; what is published is its test and its training error."""

    def run(options: Options) -> tuple[Mapping[str, Sequence[float]], dict[str, Any]]:
        """Train it; the errors are those of the last epoch, the training error as it was met during that epoch."""
        mnist = data.load("mnist")
        run = fit(
            RULE,
            partial(network, hidden=hidden, gain=gain),
            mnist,
            optimizer=optimizer(len(mnist.train)),
            epochs=options.epochs or epochs,
            batch_size=BATCH,
            seeds=options.seeds or reproduction.seeds,
            out=options.out,
            resume=options.resume,
            settings={"optimizer": "sgd", "learning_rate": RATE, "decay": 0.99},
        )
        last = [each["epochs"][-1] for each in run.results["runs"]]
        measured = {f"{kind} error": [100 * record[f"{kind}_error"] for record in last] for kind in ("test", "train")}
        return measured, {"settings": run.results["settings"], "runs": run.results["runs"]}

    reproduction = Reproduction(
        name=name,
        title=f"Equilibrium propagation in a nonlinear resistive network, 784-{hidden}-10 on MNIST",
        source=("scellier2024", "kendall2020"),
        claims=tuple(
            Claim(f"{kind} error", error, "%", 0.4, "authors' code")
            for kind, error in zip(("test", "train"), published, strict=True)
        ),
        epochs=epochs,
        seeds=3,
        minutes=minutes,
        run=run,
    )
    return reproduction


REPRODUCTION = circuit("ep-resistive", 100, gain=100.0, published=(3.46, 2.94), epochs=10, minutes=10.0)
