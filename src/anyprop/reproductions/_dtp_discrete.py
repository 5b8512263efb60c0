"""Discrete transmission: 784-500-500-10 on MNIST whose first hidden layer is heard by its sign (Lee et al. 2015).

Three ways to train it: discrete target propagation; backprop, which gets a gradient of zero at the sign and
leaves the first layer as it was drawn; and backprop on the continuous network, which is then tested with the
sign put in. The published settings, but for the inverses, which are trained together with the layers rather
than in turns of an epoch. The paper draws learning curves; no number of them is known.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Key

from .. import data, nets
from ..losses import wrong
from ..rules.exact import Backprop
from ..rules.targets import DiscreteTargetPropagation
from ..training import compare, fit
from ._dtp import optimizer, rmsprop
from ._reproduction import Claim, Options, Reproduction, final_errors

RATES = {"discrete-target-propagation": (0.000660055, 0.000432832), "backprop": 0.00254965, "continuous": 0.00324965}
"""Learning rates: of the layers and the inverses, then of the two baselines."""


def continuous(*, key: Key[Array, ""]) -> nets.Chain:
    """784-500-500-10 with tanh units."""
    return nets.mlp(784, 500, 500, 10, activation="tanh", init="orthogonal", key=key)


def discrete(*, key: Key[Array, ""]) -> nets.Chain:
    """The same network, its first hidden layer heard by its sign."""
    return with_sign(continuous(key=key))


def with_sign(model: nets.Chain) -> nets.Chain:
    """A chain with a sign between its first layer and the second."""
    first, *rest = model.stages
    return nets.Chain([first, nets.Activate("sign"), *rest])


def run(options: Options) -> tuple[Mapping[str, Sequence[float]], dict[str, Any]]:
    """Train the three; the errors are those of the last epoch."""
    mnist = data.load("mnist", validation=10_000).shaped((784,))
    epochs, seeds = options.epochs or REPRODUCTION.epochs, options.seeds or REPRODUCTION.seeds
    settings = {"optimizer": "rmsprop", "learning_rate": RATES}
    comparison = compare(
        {"discrete-target-propagation": DiscreteTargetPropagation(target_step=27.965), "backprop": Backprop()},
        discrete,
        mnist,
        optimizer={
            "discrete-target-propagation": optimizer(*RATES["discrete-target-propagation"]),
            "backprop": rmsprop(RATES["backprop"]),
        },
        epochs=epochs,
        batch_size=100,
        seeds=seeds,
        alignment=False,  # below the sign there is no gradient to be aligned with
        out=options.out,
        resume=options.resume,
        settings=settings,
    )
    smooth = fit(
        Backprop(),
        continuous,
        mnist,
        optimizer=rmsprop(RATES["continuous"]),
        epochs=epochs,
        batch_size=100,
        seeds=seeds,
        alignment=False,
        out=options.out / "continuous",
        resume=options.resume,
        settings=settings,
    )
    measured, details = final_errors(comparison)
    test = mnist.split("test")
    x, y = mnist.transform(test.x), jnp.asarray(test.y)
    measured["continuous test error with the sign"] = [
        100 * float(jnp.mean(wrong(with_sign(learner.model)(x), y))) for learner in smooth.learners
    ]
    details["continuous"] = [100 * run["epochs"][-1]["test_error"] for run in smooth.results["runs"]]
    for baseline, name in (("backprop", "backprop test error"), ("continuous", "continuous test error with the sign")):
        pairs = zip(measured["discrete-target-propagation test error"], measured[name], strict=True)
        measured[f"discrete-target-propagation error over that of {baseline}"] = [own / other for own, other in pairs]
    return measured, details


REPRODUCTION = Reproduction(
    name="dtp-discrete",
    title="Target propagation through a layer of signs against backprop, 784-500-500-10 on MNIST",
    source=("lee2015",),
    claims=(
        Claim("discrete-target-propagation test error", 3.0, "%", 0.0, "own target", at_most=True),
        Claim("discrete-target-propagation error over that of backprop", 1.0, "ratio", 0.0, "own target", at_most=True),
        Claim(
            "discrete-target-propagation error over that of continuous", 1.0, "ratio", 0.0, "own target", at_most=True
        ),
    ),
    epochs=500,
    seeds=3,
    minutes=300.0,
    run=run,
)
