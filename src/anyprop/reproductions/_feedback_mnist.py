"""Feedback rules on one hidden layer: 784-500-10 on MNIST (Akrout et al. 2019, Lillicrap et al. 2016).

Sigmoid units, sigmoid cross-entropy, W and B from N(0, 1 / (fan_in + fan_out)), plain gradient descent in
batches of 128 for 400 epochs, all 60,000 images, the last epoch's test error.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import optax

from .. import data, nets
from ..contract import Rule
from ..rules.exact import Backprop
from ..rules.feedback import FeedbackAlignment, KolenPollack, WeightMirror
from ..training import compare
from ._reproduction import Claim, Options, Reproduction, final_errors

LOSS = "binary-cross-entropy"
INIT = "normal-by-fan-sum"
RULES: dict[str, tuple[Rule, float]] = {
    "backprop": (Backprop(loss=LOSS), 0.2),
    "feedback-alignment": (FeedbackAlignment(init_feedback=INIT, loss=LOSS), 0.2),
    # The published code trains Kolen-Pollack without its decay.
    "kolen-pollack": (KolenPollack(init_feedback=INIT, decay=0.0, loss=LOSS), 0.3),
    # The published noise, rate (0.01 on a sum over 128 examples) and first pass, also without decay.
    "weight-mirror": (
        WeightMirror(
            init_feedback=INIT, feedback_rate=1.28, noise=0.1, decay=0.0, centre=False, initial_batches=468, loss=LOSS
        ),
        0.05,
    ),
}


def run(options: Options) -> tuple[Mapping[str, Sequence[float]], dict[str, Any]]:
    """Train all four rules; the errors are those of the last epoch."""
    comparison = compare(
        {name: rule for name, (rule, _) in RULES.items()},
        partial(nets.mlp, 784, 500, 10, activation="sigmoid", init=INIT),
        data.load("mnist"),
        optimizer={name: optax.sgd(rate) for name, (_, rate) in RULES.items()},
        epochs=options.epochs or REPRODUCTION.epochs,
        batch_size=128,
        seeds=options.seeds or REPRODUCTION.seeds,
        out=options.out,
        resume=options.resume,
        settings={"optimizer": "sgd", "learning_rate": {name: rate for name, (_, rate) in RULES.items()}},
    )
    return final_errors(comparison)


REPRODUCTION = Reproduction(
    name="feedback-mnist",
    title="Feedback alignment, Kolen-Pollack and weight mirrors against backprop, 784-500-10 on MNIST",
    source=("akrout2019", "lillicrap2016", "kolen1994"),
    claims=(
        Claim("backprop test error", 1.5, "%", 0.3, "authors' code"),
        Claim("feedback-alignment test error", 2.2, "%", 0.3, "authors' code"),
        Claim("kolen-pollack test error", 1.55, "%", 0.3, "authors' code"),
        Claim("weight-mirror test error", 1.51, "%", 0.3, "authors' code"),
    ),
    epochs=400,
    seeds=5,
    minutes=150.0,
    run=run,
)
