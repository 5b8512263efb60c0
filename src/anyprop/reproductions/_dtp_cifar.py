"""Difference target propagation on natural images: 3072-3x1000-10 tanh on CIFAR-10 (Lee et al. 2015).

Inputs in [0, 1] without further preparation. The paper's rates for this net are not known. Here the layers' rate, and
backprop's, are tuned on 10,000 of the images, ten passes each; in target propagation's, inverses and layers take turns.
The optimizers, the target step, the noise and the inverses' rate are those of the paper's deep net on MNIST (see
`dtp-deep-mnist`); with its rate of the layers, 0.015, target propagation does not leave chance here.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from .. import data, nets
from ._dtp_deep_mnist import BATCH, RATES, against_backprop, methods
from ._reproduction import Claim, Options, Reproduction
from ._tuning import tuned

METHODS = methods(dict.fromkeys(RATES, (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)))


def run(options: Options) -> tuple[Mapping[str, Sequence[float]], dict[str, Any]]:
    """Train both rules on all 50,000 images; the accuracies are those of the last epoch."""
    net = partial(nets.mlp, 3072, *[1000] * 3, 10, activation="tanh", init="orthogonal")
    rates = tuned(METHODS, net, data.load("cifar10", validation=10_000, train_size=10_000), BATCH, options)
    errors, details = against_backprop(REPRODUCTION, options, net, data.load("cifar10"), METHODS, rates)
    accuracies = {what.replace("error", "accuracy"): [100 - error for error in each] for what, each in errors.items()}
    return accuracies, details


REPRODUCTION = Reproduction(
    name="dtp-cifar",
    title="Difference target propagation against backprop, 3072-3x1000-10 on CIFAR-10",
    source=("lee2015",),
    claims=(
        Claim("difference-target-propagation test accuracy", 50.71, "%", 1.5, "from memory, unverified"),
        Claim("backprop test accuracy", 53.72, "%", 1.5, "from memory, unverified"),
    ),
    epochs=100,
    seeds=3,
    minutes=900.0,
    run=run,
)
