"""What the experiments on alternating minimisation share: methods, their tuning, and two looks at each.

Every method has one setting, tuned on the same number of values (`_tuning`). Methods that need the whole training set
in a step take one step a pass. Then each is trained at its best setting, and once more for a single pass, in which the
error of every mini-batch is noted before the method has learned from it.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from .. import report
from ..contract import Batch, Learner
from ..data import Data
from ..losses import wrong
from ..nets import Chain
from ..rules.auxiliary import (
    ADMM,
    AlternatingMinimization,
    AlternatingMinimizationMemory,
    MethodOfAuxiliaryCoordinates,
    OfflineAlternatingMinimization,
)
from ..rules.exact import Backprop
from ..training._program import Program, describe
from ._reproduction import Options, Reproduction
from ._tuning import Method, summary, train, tuned

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3)
"""Settings to try of a method that has a rate."""

GAMMAS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Settings to try of ADMM, whose published gamma is 10."""

MUS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Settings to try of the method of auxiliary coordinates: the penalty's weight at first."""

GROWN = 25
"""Passes in which that weight grows tenfold."""

ITERATIONS = 5
"""Of conjugate gradients in its Gauss-Newton steps: as many as alternating minimisation takes steps on its codes."""

HALVED = 8
"""Passes after which every rate is halved, for all methods alike, as published for alternating minimisation."""


def halving(
    optimizer: Callable[..., optax.GradientTransformation],
) -> Callable[[float, int], optax.GradientTransformation]:
    """Return (rate, steps a pass) -> the optimizer with a rate that is halved every `HALVED` passes."""
    return lambda rate, steps: optimizer(optax.exponential_decay(rate, HALVED * steps, 0.5, staircase=True))


def exactly(setting: float, steps: int) -> optax.GradientTransformation:
    """The optimizer that applies `old - new` as it is, whatever the setting."""
    del setting, steps
    return optax.sgd(1.0)


PUBLISHED = AlternatingMinimization(mu=0.003, code_rate=0.0015, reduction="mean")
"""The published codes, which move little from layer to layer: Adam does not mind how small an update is."""


BY_GRADIENT: dict[str, Method] = {
    "am-adam": Method(lambda rate: PUBLISHED, halving(optax.adam), RATES),
    "am-sgd": Method(lambda rate: AlternatingMinimization(), halving(optax.sgd), RATES),
    "adam": Method(lambda rate: Backprop(), halving(optax.adam), RATES),
    "sgd": Method(lambda rate: Backprop(), halving(optax.sgd), RATES),
}
"""Alternating minimisation and backprop, the setting their rate."""

FULLY_CONNECTED: dict[str, Method] = BY_GRADIENT | {
    "am-mem": Method(lambda rate: AlternatingMinimizationMemory(code_rate=rate), exactly, RATES),
    "offline-am": Method(lambda rate: OfflineAlternatingMinimization(code_rate=rate), exactly, RATES, whole=True),
    "admm": Method(lambda gamma: ADMM(gamma=gamma), exactly, GAMMAS, whole=True),
    "mac": Method(
        lambda mu: MethodOfAuxiliaryCoordinates(
            mu=mu, mu_every=GROWN, iterations=ITERATIONS, regression="gauss-newton"
        ),
        exactly,
        MUS,
        whole=True,
    ),
}
"""All methods; the setting is a rate, of the codes where the weights are solved for, ADMM's gamma, or MAC's mu."""


def fully_connected(
    reproduction: Reproduction,
    options: Options,
    shapes: Mapping[str, Callable[..., Chain]],
    whole: Data,
    tuning: Data,
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Tune and train all methods on each net, and compare alternating minimisation with the others."""
    measured: dict[str, list[float]] = {}
    details: dict[str, Any] = {}
    for name, net in shapes.items():
        found, details[name] = study(
            FULLY_CONNECTED,
            net,
            whole,
            tuning,
            dataclasses.replace(options, out=options.out / name),
            epochs=options.epochs or reproduction.epochs,
            seeds=options.seeds or reproduction.seeds,
            batch_size=200,
        )
        offline = min((n for n, m in FULLY_CONNECTED.items() if m.whole), key=lambda n: sum(found[f"{n} test error"]))
        found["am-adam test error less the best offline method's"] = less(found, "am-adam", offline)
        measured |= {f"{name} {what}": values for what, values in found.items()}
    return measured, details


def less(measured: Mapping[str, Sequence[float]], one: str, other: str, what: str = "test error") -> list[float]:
    """The difference between two methods, seed by seed."""
    return [a - b for a, b in zip(measured[f"{one} {what}"], measured[f"{other} {what}"], strict=True)]


def study(
    methods: Mapping[str, Method],
    net: Callable[..., Chain],
    data: Data,
    tuning: Data,
    options: Options,
    *,
    epochs: int,
    seeds: int,
    batch_size: int,
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Tune every method, train it, and watch its first pass.

    Args:
        methods: by name.
        net: of a `key`, builds the network.
        data: what to train and test on.
        tuning: the same data with a validation split, to tune on.
        options: of the command line; results are written below `options.out`.
        epochs: passes over the data.
        seeds: number of seeds.
        batch_size: examples of a step, for methods that do not take all of them.

    Returns:
        The last test error by method, in %, and the error of the first pass, in %, over seeds; and details.
    """
    best = tuned(methods, net, tuning, batch_size, options)
    trained = train(methods, best, net, data, options, epochs=epochs, seeds=seeds, batch_size=batch_size)
    measured, details = summary(trained)
    runs = {name: comparison.runs[name] for name, (_, comparison) in trained.items()}
    details["last_layer_refitted"] = {
        name: refitted(run.rule, run.learners, data)
        for name, run in runs.items()
        if isinstance(run.rule, MethodOfAuxiliaryCoordinates)
    }
    watched = {name: m for name, m in methods.items() if not m.whole}
    passes = {name: first_pass(m, trained[name][0], net, data, batch_size, seeds) for name, m in watched.items()}
    for name, errors in passes.items():
        measured[f"{name} error in the first pass"] = [100 * float(e) for e in errors.mean(axis=1)]
    details["first_pass"] = {name: np.round(e.mean(axis=0), 5).tolist() for name, e in passes.items()}
    draw(passes, options.out / "first_pass.png")
    for other in ("adam", "sgd"):
        measured[f"am-adam test error less {other}'s"] = less(measured, "am-adam", other)
    first = less(measured, "am-adam", "adam", "error in the first pass")
    measured["am-adam error less adam's, first pass"] = first
    return measured, details


def refitted(rule: MethodOfAuxiliaryCoordinates, learners: Sequence[Learner], data: Data) -> list[float]:
    """Test errors, in %, after the post-processing step: the last layer is fitted to what the net below it computes."""
    data = data.shaped(learners[0].model.input_shape)
    train, test = (Batch(data.transform(split.x), jnp.asarray(split.y)) for split in (data.train, data.split("test")))

    @eqx.filter_jit
    def error(learner: Learner) -> Array:
        return jnp.mean(wrong(rule.finish(learner, train).model(test.x), test.y, rule.loss.threshold))

    return [100 * float(error(learner)) for learner in learners]


def first_pass(
    method: Method, setting: float, net: Callable[..., Chain], data: Data, batch_size: int, seeds: int
) -> np.ndarray:
    """The error of every mini-batch of the first pass, (seeds, steps), before the method learns from it."""
    roots = [jax.random.key(seed) for seed in range(seeds)]
    rule, steps = method.rule(setting), len(data.train) // batch_size
    models = [net(key=jax.random.fold_in(root, 0)) for root in roots]
    data = data.shaped(models[0].input_shape)
    learners = [
        rule.init(model, data=describe(data), key=jax.random.fold_in(root, 1))
        for model, root in zip(models, roots, strict=True)
    ]
    program = Program(rule, method.optimizer(setting, steps), data, learners, batch_size=batch_size, alignment=False)
    keys = jnp.stack([jax.random.fold_in(root, 2) for root in roots])
    program.compile(program.start, keys)
    return np.asarray(program.epoch(program.start, keys)[1].error)


def draw(passes: Mapping[str, np.ndarray], path: Path, smoothed: int = 10) -> None:
    """Plot the error within the first pass, means over `smoothed` mini-batches, on a logarithmic axis."""
    runs = []
    for name, errors in passes.items():
        size = min(smoothed, errors.shape[1])
        blocks = errors[:, : errors.shape[1] // size * size].reshape(len(errors), -1, size).mean(axis=2)
        for seed, values in enumerate(blocks):
            epochs = [
                {"epoch": (i + 1) * size, "test_error": max(float(value), 1e-4)} for i, value in enumerate(values)
            ]
            runs.append({"rule": name, "seed": seed, "epochs": epochs})
    report.plot_learning(
        {"settings": {}, "versions": {}, "runs": runs}, path, counted="Mini-batch", named="Error on the mini-batch"
    )
