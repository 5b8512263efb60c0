"""Feedback rules on a convolutional net: LeNet-5 on MNIST (the settings of the BioTorch benchmark).

Gradient descent with momentum 0.9 and weight decay 1e-3, batches of 64, 100 epochs, the rate divided by ten after half
and after three quarters of them. BioTorch's rates are not on record here: each rule's is tuned on 10,000 of the images,
ten passes at each of the same five values.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import optax

from .. import data, nets
from ..contract import Rule
from ..rules.exact import Backprop
from ..rules.feedback import DirectFeedbackAlignment, FeedbackAlignment, SignSymmetry
from ._reproduction import Claim, Options, Reproduction
from ._tuning import Method, summary, train, tuned

BATCH = 64
TRIED = (1e-3, 3e-3, 1e-2, 3e-2, 0.1)
"""Rates to try."""

RULES: dict[str, Rule] = {
    "backprop": Backprop(),
    "feedback-alignment": FeedbackAlignment(),
    "direct-feedback-alignment": DirectFeedbackAlignment(),
    "sign-symmetry-uSF": SignSymmetry(variant="uSF"),
    "sign-symmetry-brSF": SignSymmetry(variant="brSF"),
    "sign-symmetry-frSF": SignSymmetry(variant="frSF"),
}


def methods(epochs: int) -> dict[str, Method]:
    """The rules, with a rate that falls within so many epochs."""

    def optimizer(rate: float, steps: int) -> optax.GradientTransformation:
        falling = optax.piecewise_constant_schedule(rate, {epochs * steps // 2: 0.1, 3 * epochs * steps // 4: 0.1})
        return optax.chain(optax.add_decayed_weights(1e-3), optax.sgd(falling, momentum=0.9))

    return {name: Method(lambda rate, rule=rule: rule, optimizer, TRIED) for name, rule in RULES.items()}


def run(options: Options) -> tuple[Mapping[str, Sequence[float]], dict[str, Any]]:
    """Tune and train all six rules; the errors are those of the last epoch."""
    net = partial(nets.lenet5, activation="relu", pool="max", init="he-normal")
    tuning = data.load("mnist", validation=10_000, train_size=10_000)
    # Over all epochs the rate first falls after more passes than tuning has: it is tuned as it starts.
    best = tuned(methods(REPRODUCTION.epochs), net, tuning, BATCH, options)
    epochs = options.epochs or REPRODUCTION.epochs
    trained = train(
        methods(epochs),
        best,
        net,
        data.load("mnist"),
        options,
        epochs=epochs,
        seeds=options.seeds or REPRODUCTION.seeds,
        batch_size=BATCH,
        alignment=True,
    )
    return summary(trained)


REPRODUCTION = Reproduction(
    name="lenet5-feedback",
    title="Feedback rules on LeNet-5, MNIST",
    source=("sanfiz2021",),
    claims=(
        Claim("backprop test error", 0.91, "%", 0.3, "third-party code"),
        Claim("feedback-alignment test error", 1.7, "%", 0.3, "third-party code"),
        Claim("direct-feedback-alignment test error", 1.61, "%", 0.3, "third-party code"),
        Claim("sign-symmetry-uSF test error", 0.94, "%", 0.3, "third-party code"),
        Claim("sign-symmetry-brSF test error", 0.91, "%", 0.3, "third-party code"),
        Claim("sign-symmetry-frSF test error", 0.97, "%", 0.3, "third-party code"),
    ),
    epochs=100,
    seeds=3,
    minutes=450.0,
    run=run,
)
