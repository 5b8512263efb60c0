"""Equilibrium propagation in a nonlinear resistive network, 784(x2)-100-10 on MNIST (Scellier 2024, model DRN-XS).

The authors' settings: pixels in [0, 1] as 100 V, four exact sweeps a phase, centred nudges of 1, batches of 4, plain
descent with a rate that falls by one percent an epoch, conductances kept at 0 or above. Their biases are currents of
either sign, drawn by no resistor; here, as in Kendall et al. 2020, they are conductances to sources at 1 V and -1 V.
"""

from collections.abc import Mapping, Sequence
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


def network(*, key: Key[Array, ""]) -> Resistive:
    """784(x2)-100-10."""
    return Resistive(784, 100, 10, gain=100.0, key=key)


def optimizer(examples: int) -> optax.GradientTransformation:
    """Descent whose rate falls by one percent after each pass over so many examples."""
    rate = optax.exponential_decay(RATE, examples // BATCH, 0.99, staircase=True)
    return optax.chain(optax.sgd(rate), write_conductances())


def run(options: Options) -> tuple[Mapping[str, Sequence[float]], dict[str, Any]]:
    """Train it; the errors are those of the last epoch, the training error as it was met during that epoch."""
    mnist = data.load("mnist")
    run = fit(
        RULE,
        network,
        mnist,
        optimizer=optimizer(len(mnist.train)),
        epochs=options.epochs or REPRODUCTION.epochs,
        batch_size=BATCH,
        seeds=options.seeds or REPRODUCTION.seeds,
        out=options.out,
        resume=options.resume,
        settings={"optimizer": "sgd", "learning_rate": RATE, "decay": 0.99},
    )
    last = [each["epochs"][-1] for each in run.results["runs"]]
    measured = {f"{split} error": [100 * record[f"{split}_error"] for record in last] for split in ("test", "train")}
    return measured, {"settings": run.results["settings"], "runs": run.results["runs"]}


REPRODUCTION = Reproduction(
    name="ep-resistive",
    title="Equilibrium propagation in a nonlinear resistive network, 784-100-10 on MNIST",
    source=("scellier2024", "kendall2020"),
    claims=(
        Claim("test error", 3.46, "%", 0.4, "authors' code"),
        Claim("train error", 2.94, "%", 0.4, "authors' code"),
    ),
    epochs=10,
    seeds=3,
    minutes=10.0,
    run=run,
)
