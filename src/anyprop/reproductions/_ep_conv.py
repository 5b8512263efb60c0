"""Convolutional equilibrium propagation on MNIST (Ernoult et al. 2019): two convolutions, pooling, one dense layer.

Discrete time, hard sigmoids, the published rates, batches of 20, 40 epochs; 10 nudged and at most 200 free steps, fewer
once no unit moves by more than 1e-5. Two things are not known from the paper: here the nudge's sign is drawn for each
batch, and weights start uniform in +-1/sqrt(fan-in), PyTorch's default. Glorot's weights, which are larger, drive the
outputs to their bounds, where they no longer feel the nudge.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jaxtyping import Array, Key

from .. import data
from ..nets import Activate, Chain, Conv, Dense, Flatten, Pool
from ..rules.equilibrium import EquilibriumPropagation
from ._ep import Experiment, trained
from ._reproduction import Claim, Options, Reproduction


def mnist_net(key: Key[Array, ""]) -> Chain:
    """Convolutions of 32 and 64 channels, 5 by 5, each pooled 2 by 2 before its units, and a dense layer."""
    first, second, last = jax.random.split(key, 3)
    return Chain(
        [
            Conv(1, 32, 5, padding="VALID", init="uniform-by-fan-in", key=first),
            Pool("max", 2),
            Activate("hard-sigmoid"),
            Conv(32, 64, 5, padding="VALID", init="uniform-by-fan-in", key=second),
            Pool("max", 2),
            Activate("hard-sigmoid"),
            Flatten(),
            Dense(1024, 10, activation="hard-sigmoid", init="uniform-by-fan-in", key=last),
        ],
        input_shape=(28, 28, 1),
    )


def run(options: Options) -> tuple[Mapping[str, Sequence[float]], dict[str, Any]]:
    """Train the net."""
    return trained(REPRODUCTION, options, {"P-conv": PUBLISHED}, data.load("mnist"))


PUBLISHED = Experiment(
    net=mnist_net,
    rule=EquilibriumPropagation(
        0.4,
        "random-sign",
        nudged_steps=10,
        free_steps=200,
        tolerance=1e-5,
        relaxation="fixed-point",
        network="convergent",
    ),
    rates=(0.15, 0.035, 0.015),
    epochs=40,
)

REPRODUCTION = Reproduction(
    name="ep-conv",
    title="Convolutional equilibrium propagation on MNIST",
    source=("ernoult2019",),
    claims=(Claim("P-conv test error", 1.02, "%", 0.3, "from memory, unverified"),),
    epochs=40,
    seeds=3,
    minutes=1000.0,
    run=run,
)
