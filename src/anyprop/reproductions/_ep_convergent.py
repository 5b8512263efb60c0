"""Equilibrium propagation in energy-based and in discrete-time networks on MNIST (Ernoult et al. 2019).

The published rates, steps and nudges; batches of 20, 60,000 images to train on, the last epoch's test error. Units are
sigmoids of slope 1 at one half (`steep-sigmoid`). In continuous time the cost is one of the outputs' states, not of
their rates: it pulls at a unit as hard where its sigmoid is flat. Two things are not known from the paper: here the
nudge's sign is drawn for each batch, and weights start uniform in +-1/sqrt(fan-in), PyTorch's default. With larger
weights the discrete-time nets end in cycles of two states.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from jaxtyping import Array

from .. import data, nets
from ..energies import Hopfield
from ..rules.equilibrium import EquilibriumPropagation
from ._ep import Experiment, trained
from ._reproduction import Claim, Options, Reproduction


def _net(hidden: int) -> partial:
    units = {"activation": "steep-sigmoid", "output": "steep-sigmoid", "init": "uniform-by-fan-in"}
    return partial(nets.mlp, 784, *[512] * hidden, 10, **units)


class Stated(Hopfield):
    """A Hopfield network that answers with the state of its last layer."""

    def output(self, state: list[Array]) -> Array:
        """Return s_L."""
        return state[-1]


def energy_based(free: int, nudged: int, rates: tuple[float, ...], epochs: int) -> Experiment:
    """Hopfield networks in continuous time, in steps of 0.2."""
    rule = EquilibriumPropagation(0.5, "random-sign", nudged_steps=nudged, free_steps=free, step_size=0.2)
    chain = _net(len(rates) - 1)
    return Experiment(lambda key: Stated(chain(key=key)), rule, rates, epochs)


def prototypical(free: int, nudged: int, beta: float, rates: tuple[float, ...], epochs: int) -> Experiment:
    """Convergent networks in discrete time."""
    rule = EquilibriumPropagation(
        beta, "random-sign", nudged_steps=nudged, free_steps=free, relaxation="fixed-point", network="convergent"
    )
    return Experiment(_net(len(rates) - 1), rule, rates, epochs)


def nets_of(
    name: str, depth: str, experiments: Mapping[str, Experiment], published: Mapping[str, float], minutes: float
) -> Reproduction:
    """The nets of one depth, and their published test errors."""

    def run(options: Options) -> tuple[Mapping[str, Sequence[float]], dict[str, Any]]:
        """Train them."""
        return trained(reproduction, options, experiments, data.load("mnist"))

    reproduction = Reproduction(
        name=name,
        title=f"Equilibrium propagation in continuous and in discrete time, {depth} of 512 on MNIST",
        source=("ernoult2019",),
        claims=tuple(
            Claim(f"{net} test error", error, "%", 0.3, "from memory, unverified") for net, error in published.items()
        ),
        epochs=max(each.epochs for each in experiments.values()),
        seeds=3,
        minutes=minutes,
        run=run,
        guess="The initial weights and the signs of the nudge are not known from the paper.",
    )
    return reproduction


REPRODUCTION = nets_of(
    "ep-convergent",
    "one hidden layer",
    {"EB-1h": energy_based(100, 12, (0.1, 0.05), 30), "P-1h": prototypical(40, 15, 0.1, (0.08, 0.04), 30)},
    {"EB-1h": 2.06, "P-1h": 2.00},
    minutes=40.0,
)
