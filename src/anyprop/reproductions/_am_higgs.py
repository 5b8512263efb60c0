"""HIGGS by alternating minimisation, 28-300-300-2, in one pass, against backprop and ADMM's benchmark.

The published net has ten outputs of which two are used; here it has two. The benchmark is an accuracy of
64 %. Standardised features, batches of 200, one pass. Where the data are a part of the 11 million rows, the
details say how many (Choromanska et al. 2019).
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from .. import data, nets
from ._am import BY_GRADIENT, study
from ._reproduction import Claim, Options, Reproduction


def run(options: Options) -> tuple[Mapping[str, Sequence[float]], dict[str, Any]]:
    """Train alternating minimisation and backprop; errors are those after the last pass."""
    higgs = data.load("higgs", standardise=True)
    measured, details = study(
        BY_GRADIENT,
        partial(nets.mlp, 28, 300, 300, 2, activation="relu"),
        higgs,
        data.load("higgs", standardise=True, validation=5_000),
        options,
        epochs=options.epochs or REPRODUCTION.epochs,
        seeds=options.seeds or REPRODUCTION.seeds,
        batch_size=200,
    )
    return measured, details | {"training_rows": len(higgs.train)}


REPRODUCTION = Reproduction(
    name="am-higgs",
    title="Alternating minimisation against backprop and ADMM's benchmark on HIGGS, one pass",
    source=("choromanska2019", "taylor2016"),
    claims=(
        Claim("am-adam test error", 36.0, "%", 0.0, "paper", at_most=True),
        Claim("am-sgd test error", 36.0, "%", 0.0, "paper", at_most=True),
        Claim("am-adam test error less adam's", 0.0, "points", 1.0, "paper", at_most=True),
        Claim("am-adam test error less sgd's", 0.0, "points", 0.0, "paper", at_most=True),
    ),
    epochs=1,
    seeds=5,
    minutes=5.0,
    run=run,
    guess=(
        "Our pass is over a part of the published rows, and Adam learns more from few steps than codes do. By SGD "
        "the spread over seeds is larger than what the error is above its bound."
    ),
)
