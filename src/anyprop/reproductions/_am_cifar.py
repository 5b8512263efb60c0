"""Fully connected nets on CIFAR-10 by alternating minimisation, 3072-100-100-10 and 3072-500-500-10.

As on MNIST, see `_am_mnist`: inputs standardised by channel, no augmentation; settings are tuned on 10,000 of
the images (Choromanska et al. 2019).
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from .. import data, nets
from ._am import fully_connected
from ._reproduction import Claim, Options, Reproduction


def run(options: Options) -> tuple[Mapping[str, Sequence[float]], dict[str, Any]]:
    """Train all methods on both nets."""
    return fully_connected(
        REPRODUCTION,
        options,
        {f"2x{width}": partial(nets.mlp, 3072, width, width, 10, activation="relu") for width in (100, 500)},
        data.load("cifar10", standardise=True),
        data.load("cifar10", standardise=True, validation=10_000, train_size=10_000),
    )


REPRODUCTION = Reproduction(
    name="am-cifar",
    title="Alternating minimisation against offline methods and backprop, 3072-2x100-10 and 3072-2x500-10 on CIFAR-10",
    source=("choromanska2019", "taylor2016", "carreira2014"),
    claims=(
        Claim("2x500 am-adam test error", 50.0, "%", 0.0, "own target", at_most=True),
        Claim("2x100 am-adam error less adam's, first pass", 0.0, "points", 0.0, "paper", at_most=True),
        Claim("2x500 am-adam error less adam's, first pass", 0.0, "points", 0.0, "paper", at_most=True),
        Claim("2x100 am-adam test error less adam's", 0.0, "points", 1.0, "paper", at_most=True),
        Claim("2x500 am-adam test error less adam's", 0.0, "points", 1.0, "paper", at_most=True),
        Claim("2x100 am-adam test error less the best offline method's", 0.0, "points", 0.0, "paper", at_most=True),
        Claim("2x500 am-adam test error less the best offline method's", 0.0, "points", 0.0, "paper", at_most=True),
    ),
    epochs=50,
    seeds=3,
    minutes=300.0,
    run=run,
    guess="Rates are tuned for the error after ten passes, not for that within the first.",
)
