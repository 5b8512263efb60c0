"""Deep convolutional equilibrium propagation on CIFAR-10 (Laborieux et al. 2021), squared error.

Four convolutions of 128 to 512 channels, 3 by 3, each pooled 2 by 2 before its units, and a dense layer; units
clip(a / 2, 0, 1), discrete time, 250 free and 30 nudged steps, centred nudges of 0.5, batches of 128, flips and crops,
momentum 0.9, weight decay 3e-4, rates on a cosine. An experiment for an accelerator.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import optax
from jaxtyping import Array, Key

from .. import data
from ..nets import Activate, Chain, Conv, Dense, Flatten, Pool
from ..rules.equilibrium import EquilibriumPropagation
from ._ep import Experiment, trained
from ._reproduction import Claim, Options, Reproduction

CHANNELS = (3, 128, 256, 512, 512)
BATCH, EPOCHS, ANNEALED = 128, 120, 100


def net(key: Key[Array, ""]) -> Chain:
    """The published net; the last convolution is not padded, so that 512 units are left."""
    keys = jax.random.split(key, 5)
    stages = []
    for i, padding in enumerate((1, 1, 1, 0)):
        conv = Conv(CHANNELS[i], CHANNELS[i + 1], 3, padding=padding, init="he-normal", key=keys[i])
        stages += [conv, Pool("max", 2), Activate("half-hard-sigmoid")]
    last = Dense(CHANNELS[-1], 10, activation="half-hard-sigmoid", key=keys[-1])
    return Chain([*stages, Flatten(), last], input_shape=(32, 32, 3))


def momentum(steps: int, rate: float) -> optax.GradientTransformation:
    """Momentum with weight decay; the rate falls on a cosine over so many steps, and stays there."""
    return optax.chain(
        optax.add_decayed_weights(3e-4), optax.sgd(optax.cosine_decay_schedule(rate, steps, 1e-5 / rate), momentum=0.9)
    )


def run(options: Options) -> tuple[Mapping[str, Sequence[float]], dict[str, Any]]:
    """Train the net."""
    images = data.load("cifar10", standardise=True, augmentation=("flip", "crop"))
    rule = EquilibriumPropagation(0.5, nudged_steps=30, free_steps=250, relaxation="fixed-point", network="convergent")
    experiment = Experiment(
        net,
        rule,
        (0.25, 0.15, 0.1, 0.08, 0.05),
        EPOCHS,
        partial(momentum, ANNEALED * (len(images.train) // BATCH)),
        BATCH,
    )
    return trained(REPRODUCTION, options, {"centred": experiment}, images)


REPRODUCTION = Reproduction(
    name="ep-cifar",
    title="Deep convolutional equilibrium propagation on CIFAR-10, centred nudges",
    source=("laborieux2021",),
    claims=(Claim("centred test error", 12.45, "%", 0.5, "from memory, unverified"),),
    epochs=EPOCHS,
    seeds=3,
    minutes=100_000.0,
    run=run,
)
