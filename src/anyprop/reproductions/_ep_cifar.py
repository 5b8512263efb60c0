"""Deep convolutional equilibrium propagation on CIFAR-10 (Laborieux et al. 2021, Laborieux and Zenke 2022).

Four convolutions of 128 to 512 channels, 3 by 3, each pooled 2 by 2 before its units, and a dense layer; discrete time
from a state of zero, batches of 128, flips and crops, momentum 0.9. An experiment for an accelerator. Centred nudges:

    squared error    units clip(a / 2, 0, 1), 250 free and 30 nudged steps, beta 0.5, weight decay 3e-4, rates on a
                     cosine over 100 of 120 epochs
    cross-entropy    the same with 25 nudged steps and beta 1, the dense layer a read-out that the system does not feel
    holomorphic      softmax pooling and 60 nudged steps, beta 1, weight decay 2e-3, 90 epochs: the net of holomorphic
                     equilibrium propagation with two points. Its units and its schedule are not known to us: here
                     sigmoids of slope 1 at one half, and the cosine over all epochs

The published dropout of the second net's last convolution is left out.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import optax
from jaxtyping import Array, Key

from .. import data
from ..energies import Convergent, ReadOut
from ..nets import Activate, Chain, Conv, Dense, Flatten, Pool, Stage
from ..rules.equilibrium import EquilibriumPropagation
from ._ep import Experiment, trained
from ._reproduction import Claim, Options, Reproduction

CHANNELS = (3, 128, 256, 512, 512)
BATCH = 128
UNITS = "half-hard-sigmoid"
RATES = (0.25, 0.15, 0.1, 0.08, 0.05)


def features(keys: Key[Array, " layers"], *, units: str, pool: str) -> list[Stage]:
    """The four convolutions; the last one is not padded, so that 512 units are left."""
    stages = []
    for i, padding in enumerate((1, 1, 1, 0)):
        conv = Conv(CHANNELS[i], CHANNELS[i + 1], 3, padding=padding, init="he-normal", key=keys[i])
        stages += [conv, Pool(pool, 2), Activate(units)]
    return stages


def net(key: Key[Array, ""]) -> Chain:
    """Convolutions and a dense layer of the same kind."""
    keys = jax.random.split(key, 5)
    last = Dense(CHANNELS[-1], 10, activation=UNITS, key=keys[-1])
    return Chain([*features(keys, units=UNITS, pool="max"), Flatten(), last], input_shape=(32, 32, 3))


def net_with_readout(key: Key[Array, ""], *, units: str = UNITS, pool: str = "max") -> ReadOut:
    """Convolutions, and a dense layer that reads them."""
    keys = jax.random.split(key, 5)
    system = Convergent(Chain(features(keys, units=units, pool=pool), input_shape=(32, 32, 3)))
    return ReadOut(system, Dense(CHANNELS[-1], 10, key=keys[-1]))


def momentum(decay: float, steps: int, rate: float) -> optax.GradientTransformation:
    """Momentum with weight decay; the rate falls on a cosine over so many steps, and stays there."""
    return optax.chain(
        optax.add_decayed_weights(decay), optax.sgd(optax.cosine_decay_schedule(rate, steps, 1e-5 / rate), momentum=0.9)
    )


def experiments(examples: int) -> dict[str, Experiment]:
    """The three, for so many training images."""
    steps = examples // BATCH
    rule = EquilibriumPropagation(0.5, nudged_steps=30, free_steps=250, relaxation="fixed-point", network="convergent")
    entropy = dataclasses.replace(rule, beta=1.0, nudged_steps=25, loss="cross-entropy")
    longer = dataclasses.replace(entropy, nudged_steps=60)
    smooth = partial(net_with_readout, units="steep-sigmoid", pool="softmax")
    return {
        "squared error": Experiment(net, rule, RATES, 120, partial(momentum, 3e-4, 100 * steps), BATCH),
        "cross-entropy": Experiment(net_with_readout, entropy, RATES, 120, partial(momentum, 3e-4, 100 * steps), BATCH),
        "holomorphic": Experiment(smooth, longer, RATES, 90, partial(momentum, 2e-3, 90 * steps), BATCH),
    }


def run(options: Options) -> tuple[Mapping[str, Sequence[float]], dict[str, Any]]:
    """Train the nets."""
    images = data.load("cifar10", standardise=True, augmentation=("flip", "crop"))
    return trained(REPRODUCTION, options, experiments(len(images.train)), images)


REPRODUCTION = Reproduction(
    name="ep-cifar",
    title="Deep convolutional equilibrium propagation on CIFAR-10, centred nudges",
    source=("laborieux2021", "laborieux2022"),
    claims=(
        Claim("squared error test error", 12.45, "%", 0.5, "from memory, unverified"),
        Claim("cross-entropy test error", 11.68, "%", 0.5, "paper"),
        Claim("holomorphic test error", 100 - 88.45, "%", 0.5, "authors' code"),
    ),
    epochs=120,
    seeds=3,
    minutes=300_000.0,
    run=run,
)
