"""The assignment of the course NEUR 503 (Richards, McGill), and the two laws behind its lesson.

1. A multi-layer network learns MNIST by weight perturbation, backprop, feedback alignment and
   Kolen-Pollack, at the same number of epochs and, as backward passes cost too, of passes over the network.
2. The cosine between a weight perturbation and the gradient is 1 / sqrt(n) (root mean square) for n weights.
3. On a linear net of N inputs and M outputs, learned example by example, each method at its best rate, the
   times that the gradient, node and weight perturbation need to learn are in the ratio 1 : M + 2 : M N + 2,
   which is the 1 : M : M N of Werfel, Xie & Seung (2005) up to the finite size.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Key

from .. import data, nets, report
from ..contract import Batch, Learner, Rule, exact_gradient
from ..losses import SquaredError
from ..rules.exact import Backprop
from ..rules.feedback import FeedbackAlignment, KolenPollack
from ..rules.perturbation import NodePerturbation, WeightPerturbation
from ..training import Diverged, compare, fit
from ._reproduction import Claim, Options, Reproduction, final_errors

RULES: dict[str, Rule] = {
    "backprop": Backprop(),
    "feedback-alignment": FeedbackAlignment(),
    "kolen-pollack": KolenPollack(),
    "weight-perturbation": WeightPerturbation(antithetic=True),
}
GRID = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
"""Learning rates that every rule is tried with; the best on the validation split after two epochs is used."""

PASSES = {"backprop": 2, "feedback-alignment": 2, "kolen-pollack": 2, "weight-perturbation": 3}
"""Passes over the network for one step: a backward pass counts like a forward one, an evaluation is one pass."""

WIDTHS = (2, 8, 32, 128, 512)
INPUTS, OUTPUTS = 100, 10


def run(options: Options) -> tuple[Mapping[str, Sequence[float]], dict[str, Any]]:
    """Train the four rules, then measure the two laws."""
    mnist = data.load("mnist", validation=10_000)
    seeds = options.seeds or REPRODUCTION.seeds
    net = partial(nets.mlp, 784, 100, 10, activation="sigmoid")
    rates = {name: best_rate(rule, net, mnist) for name, rule in RULES.items()}
    comparison = compare(
        RULES,
        net,
        mnist,
        optimizer={name: optax.sgd(rate) for name, rate in rates.items()},
        epochs=options.epochs or REPRODUCTION.epochs,
        batch_size=100,
        seeds=seeds,
        out=options.out,
        resume=options.resume,
        settings={"optimizer": "sgd", "learning_rate": rates},
    )
    measured, details = final_errors(comparison)
    steps = len(mnist.train) // 100
    details["passes_per_epoch"] = {name: steps * passes for name, passes in PASSES.items()}
    draw(details, options.out)

    cosines = {n: [perturbation_cosine(w, seed) for seed in range(seeds)] for w, n in zip(WIDTHS, sizes(), strict=True)}
    logs = np.log([np.mean(values) for values in cosines.values()])
    measured["slope of log cosine against log n"] = [float(np.polyfit(np.log(list(cosines)), logs, 1)[0])]
    details["cosine"] = {str(n): values for n, values in cosines.items()}

    times = {name: [learning_time(name, seed) for seed in range(seeds)] for name in ("gradient", "node", "weight")}
    for name in ("node", "weight"):
        ratios = [t / g for t, g in zip(times[name], times["gradient"], strict=True)]
        measured[f"learning time of {name} perturbation over the gradient's"] = ratios
    details["learning_time"] = times
    return measured, details


def draw(details: Mapping[str, Any], folder: Path) -> None:
    """Plot the test error by epoch, and by the passes over the network that it took."""
    thousands = {name: passes / 1000 for name, passes in details["passes_per_epoch"].items()}
    for file, counted, unit in (
        ("epochs.png", "Epoch", dict.fromkeys(thousands, 1)),
        ("passes.png", "Passes over the network, in thousands", thousands),
    ):
        runs = [
            {"rule": name, "seed": 0, "epochs": [point | {"epoch": point["epoch"] * unit[name]} for point in curve]}
            for name, curve in details["curves"].items()
        ]
        report.plot_learning({"settings": {}, "versions": {}, "runs": runs}, folder / file, counted=counted)


def best_rate(rule: Rule, net: partial[nets.Chain], mnist: data.Data) -> float:
    """The rate of the grid with the lowest validation error after two epochs of one seed."""

    def error(rate: float) -> float:
        try:
            run = fit(rule, net, mnist, optimizer=optax.sgd(rate), epochs=2, alignment=False, progress=False)
        except Diverged:
            return 1.0
        return run.records[-1]["validation_error"]

    return min(GRID, key=error)


def sizes() -> list[int]:
    """The number of weights of the nets that `perturbation_cosine` measures."""
    return [20 * width + width + width * 10 + 10 for width in WIDTHS]


def perturbation_cosine(width: int, seed: int, draws: int = 1000) -> float:
    """The root mean square cosine of one weight perturbation with the exact gradient, on a 20-width-10 net."""
    keys = jax.random.split(jax.random.key(seed), 4)
    net = nets.mlp(20, width, 10, key=keys[0])
    batch = Batch(jax.random.normal(keys[1], (50, 20)), jax.random.randint(keys[2], (50,), 0, 10))
    rule = WeightPerturbation(sigma=1e-3, antithetic=True)
    learner = rule.init(net, key=keys[3])
    exact = ravel_pytree(exact_gradient(rule.loss, net, batch)[2])[0]

    def cosine(key: Key[Array, ""]) -> Array:
        update = ravel_pytree(rule.credit(learner, batch, key=key).grads)[0]
        return update @ exact / (jnp.linalg.norm(update) * jnp.linalg.norm(exact))

    cosines = jax.lax.map(cosine, jax.random.split(keys[3], draws), batch_size=50)
    return float(jnp.sqrt(jnp.mean(cosines**2)))


def learning_time(method: str, seed: int, replicas: int = 16) -> float:
    """Steps in which the error of a linear net falls by a factor e, at the best rate, example by example.

    With inputs x ~ N(0, I_N) the squared distance D from the teacher's weights changes in one step of rate
    eta to D (1 - 2 eta + eta^2 V) in the mean, where V is the estimator's mean square over D; eta = 1 / V is
    the best rate. V is (N + 2) for the gradient, times (M + 2) for node and (M N + 2) for weight perturbation.
    """
    n = {"gradient": 1, "node": OUTPUTS + 2, "weight": OUTPUTS * INPUTS + 2}[method]
    rate, steps = 1 / ((INPUTS + 2) * n), (INPUTS + 2) * n
    loss = SquaredError()
    rule: Rule = {
        "gradient": Backprop(loss=loss),
        "node": NodePerturbation(sigma=1e-3, loss=loss),
        "weight": WeightPerturbation(sigma=1e-3, antithetic=True, loss=loss),
    }[method]

    def one(key: Key[Array, ""]) -> tuple[Array, Array]:
        key_net, key_teacher, key_rule, key_steps = jax.random.split(key, 4)
        net = nets.mlp(INPUTS, OUTPUTS, bias=False, key=key_net)
        teacher = net.redraw(key_teacher)
        start = rule.init(net, key=key_rule)

        def distance(learner: Learner) -> Array:
            (layer,), (target,) = nets.sites(learner.model), nets.sites(teacher)
            return jnp.sum((layer.weight - target.weight) ** 2)

        def step(learner: Learner, key: Key[Array, ""]) -> tuple[Learner, None]:
            key_x, key_credit = jax.random.split(key)
            x = jax.random.normal(key_x, (1, INPUTS))
            credit = rule.credit(learner, Batch(x, teacher(x)), key=key_credit)
            return learner.apply(jax.tree.map(lambda g: -rate * g, credit.grads), credit.memory), None

        last, _ = jax.lax.scan(step, start, jax.random.split(key_steps, steps))
        return distance(start), distance(last)

    with jax.enable_x64(True):
        before, after = eqx.filter_jit(jax.vmap(one))(jax.random.split(jax.random.key(seed), replicas))
        return float(steps / jnp.log(before.mean() / after.mean()))


REPRODUCTION = Reproduction(
    name="neur503",
    title="The course assignment: weight perturbation, backprop, feedback alignment, Kolen-Pollack; two scaling laws",
    source=("werfel2005", "lillicrap2016", "kolen1994"),
    claims=(
        Claim("slope of log cosine against log n", -0.5, "", 0.02, "theory"),
        Claim(
            "learning time of node perturbation over the gradient's",
            float(OUTPUTS + 2),
            "ratio",
            0.2 * (OUTPUTS + 2),
            "theory, M + 2; Werfel et al. have M",
        ),
        Claim(
            "learning time of weight perturbation over the gradient's",
            float(OUTPUTS * INPUTS + 2),
            "ratio",
            0.2 * (OUTPUTS * INPUTS + 2),
            "theory, M N + 2; Werfel et al. have M N",
        ),
        Claim("weight-perturbation test error", 20.0, "%", 0.0, "own target", at_most=True),
    ),
    epochs=20,
    seeds=3,
    minutes=10.0,
    run=run,
    guess="The error of weight perturbation still falls in the last epochs; the bound is our own.",
)
