"""Difference target propagation on natural images: 3072-3x1000-10 tanh on CIFAR-10 (Lee et al. 2015).

Inputs in [0, 1] without further preparation. The paper's rates for this net are not known: the optimizers, the
target step and the noise are those of its deep net on MNIST (see `dtp-deep-mnist`), untuned: with them target
propagation does not leave chance here.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from .. import data, nets
from ._dtp_deep_mnist import against_backprop
from ._reproduction import Claim, Options, Reproduction


def run(options: Options) -> tuple[Mapping[str, Sequence[float]], dict[str, Any]]:
    """Train both rules on all 50,000 images; the accuracies are those of the last epoch."""
    net = partial(nets.mlp, 3072, *[1000] * 3, 10, activation="tanh", init="orthogonal")
    errors, details = against_backprop(REPRODUCTION, options, net, data.load("cifar10"))
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
