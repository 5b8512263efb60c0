"""Alternating minimisation on MNIST, 784-100-100-10 and 784-500-500-10 (Choromanska et al. 2019).

ReLU units, standardised inputs, batches of 200, 50 epochs. The published runs normalise the hidden layers over
the batch, which couples its examples; here they are plain, and every method's setting is tuned anew, for each net
and on 10,000 of the images.
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
        {f"2x{width}": partial(nets.mlp, 784, width, width, 10, activation="relu") for width in (100, 500)},
        data.load("mnist", standardise=True),
        data.load("mnist", standardise=True, validation=10_000, train_size=10_000),
    )


REPRODUCTION = Reproduction(
    name="am-mnist",
    title="Alternating minimisation against offline methods and backprop, 784-2x100-10 and 784-2x500-10 on MNIST",
    source=("choromanska2019", "taylor2016", "carreira2014"),
    claims=(
        Claim("2x100 am-adam test error", 3.0, "%", 0.0, "own target", at_most=True),
        Claim("2x500 am-adam test error", 2.0, "%", 0.0, "own target", at_most=True),
        Claim("2x100 am-adam error less adam's, first pass", 0.0, "points", 0.0, "paper", at_most=True),
        Claim("2x500 am-adam error less adam's, first pass", 0.0, "points", 0.0, "paper", at_most=True),
        Claim("2x100 am-adam test error less adam's", 0.0, "points", 0.5, "paper", at_most=True),
        Claim("2x500 am-adam test error less adam's", 0.0, "points", 0.5, "paper", at_most=True),
        Claim("2x100 am-adam test error less the best offline method's", 0.0, "points", 0.0, "paper", at_most=True),
        Claim("2x500 am-adam test error less the best offline method's", 0.0, "points", 0.0, "paper", at_most=True),
    ),
    epochs=50,
    seeds=3,
    minutes=180.0,
    run=run,
    guess="Rates are tuned for the error after ten passes, not for that within the first.",
)
