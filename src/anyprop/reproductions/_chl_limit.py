"""Contrastive Hebbian learning under weak feedback is backprop (Xie and Seung 2003).

1. The cosine of its update with backprop's, layer by layer, on random three-layer nets of sigmoids, as the feedback
   gets weaker.
2. The same after 1, 2, ... steps of the clamped phase: is one step enough?
3. 784-100-10 on MNIST, trained by both. The paper's own net and numbers are not known.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from .. import data, nets
from ..contract import Batch, exact_gradient
from ..diagnose._layers import by_layer, cosine
from ..rules.equilibrium import ContrastiveHebbian
from ..rules.exact import Backprop
from ..training import compare
from ._reproduction import Claim, Options, Reproduction, final_errors

LOSS = "binary-cross-entropy"

SIZES = (10, 12, 8, 5)
NETWORKS = 32
"""Random nets of each seed, over which cosines are averaged."""

FEEDBACKS = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
STEPS = (1, 2, 3, 4, 6, 10)
"""Lengths of the clamped phase."""

LAYERS = ("1 Dense", "2 Dense", "3 Dense")
SETTLED = 60
"""Steps in which the random nets settle."""

FEEDBACK = 0.05
"""gamma, on MNIST."""


def run(options: Options) -> tuple[Mapping[str, Sequence[float]], dict[str, Any]]:
    """Measure the cosines, then train."""
    seeds = options.seeds or REPRODUCTION.seeds
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), (seeds, NETWORKS))
        each = jax.jit(jax.vmap(jax.vmap(agreement)))
        weaker, shorter = ({k: np.asarray(v).mean(1) for k, v in part.items()} for part in each(keys))
    measured: dict[str, list[float]] = {}
    for feedback in (0.5, 0.1, 0.01):
        measured[f"lowest cosine of a layer at feedback {feedback}"] = weaker[feedback][..., 0].min(1).tolist()
    measured["ratio of sizes at feedback 0.01, furthest from 1"] = [
        float(ratios[np.argmax(np.abs(ratios - 1))]) for ratios in weaker[0.01][..., 1]
    ]
    full = shorter[STEPS[-1]][..., 0]
    reached = {steps: np.all(np.abs(shorter[steps][..., 0] - full) < 0.01, axis=1) for steps in STEPS}
    measured["clamped steps until every cosine is within 0.01 of the last"] = [
        float(next(steps for steps in STEPS if reached[steps][seed])) for seed in range(seeds)
    ]
    plot(weaker, shorter, options.out / "cosines.png")

    comparison = compare(
        {"contrastive-hebbian": ContrastiveHebbian(FEEDBACK, 10, 10, loss=LOSS), "backprop": Backprop(loss=LOSS)},
        partial(nets.mlp, 784, 100, 10, activation="sigmoid"),
        data.load("mnist"),
        optimizer=optax.adam(1e-3),
        epochs=options.epochs or REPRODUCTION.epochs,
        batch_size=100,
        seeds=seeds,
        out=options.out,
        resume=options.resume,
        settings={"optimizer": "adam", "learning_rate": 1e-3},
    )
    errors, details = final_errors(comparison)
    pairs = zip(errors["contrastive-hebbian test error"], errors["backprop test error"], strict=True)
    measured |= errors | {"contrastive-hebbian test error less that of backprop": [own - other for own, other in pairs]}
    details["cosines"] = {
        "by_feedback": {str(feedback): found.tolist() for feedback, found in weaker.items()},
        "by_steps": {str(steps): found.tolist() for steps, found in shorter.items()},
    }
    return measured, details


def agreement(key: Key[Array, ""]) -> tuple[dict[float, Array], dict[float, Array]]:
    """The cosine and the ratio of sizes with backprop, of each layer of a random net.

    Returns:
        By feedback, in settled phases, and by the length of the clamped phase, at a feedback of 0.1.
    """
    key_net, key_x, key_y = jax.random.split(key, 3)
    net = nets.mlp(*SIZES, activation="sigmoid", init=jax.random.normal, key=key_net)
    x = jax.random.normal(key_x, (20, SIZES[0]))
    batch = Batch(x, jax.random.randint(key_y, (20,), 0, SIZES[-1]))
    gradient = by_layer(net, exact_gradient(Backprop(loss=LOSS).loss, net, batch)[2])

    def compared(feedback: float, clamped_steps: int) -> Float[Array, "layers 2"]:
        # At full strength, steps of 1 could end in a cycle.
        rule = ContrastiveHebbian(feedback, SETTLED, clamped_steps, step_size=1.0 if feedback < 1 else 0.5, loss=LOSS)
        update = by_layer(net, rule.credit(rule.init(net, key=key), batch, key=key).grads[0].chain)
        ratios = {name: jnp.linalg.norm(update[name]) / jnp.linalg.norm(gradient[name]) for name in LAYERS}
        # Of a layer that has not moved yet, the direction is that of rounding errors.
        cosines = {n: jnp.where(r > 1e-6, cosine(update[n], gradient[n]), 0.0) for n, r in ratios.items()}
        return jnp.stack([jnp.stack([cosines[name], ratios[name]]) for name in LAYERS])

    return {f: compared(f, SETTLED) for f in FEEDBACKS}, {n: compared(0.1, n) for n in STEPS}


def plot(weaker: Mapping[float, np.ndarray], shorter: Mapping[float, np.ndarray], path: Path) -> None:
    """Save the cosines, (seeds, layers, 2) for each setting: a mean over seeds, and a band to lowest and highest."""
    # matplotlib takes long to import, so it waits until there is something to draw.
    from ..report._plots import _draw, _figure, _legend, _save, looks
    from ..report._records import Curve

    look = looks(LAYERS)
    figure, axes = _figure(8.0, 3.6, columns=2)
    names = ("Feedback", "Steps of the clamped phase")
    for ax, name, found in zip(axes, names, (weaker, shorter), strict=True):
        at = np.array(sorted(found))
        cosines = np.stack([found[setting][..., 0] for setting in sorted(found)])
        for layer, layer_name in enumerate(LAYERS):
            c = cosines[..., layer]
            _draw(ax, Curve(at, c.mean(1), c.min(1), c.max(1)), look[layer_name])
        ax.set_xlabel(name)
    axes[0].set_xscale("log")
    axes[0].set_ylabel("Cosine with backprop")
    _legend(figure, LAYERS, look)
    _save(figure, path)


REPRODUCTION = Reproduction(
    name="chl-limit",
    title="Contrastive Hebbian learning against backprop as feedback gets weak, and on MNIST with 784-100-10",
    source=("xie2003",),
    claims=(
        Claim("lowest cosine of a layer at feedback 0.5", 0.81, "", 0.1, "own target"),
        Claim("lowest cosine of a layer at feedback 0.1", 0.99, "", 0.01, "own target"),
        Claim("lowest cosine of a layer at feedback 0.01", 1.0, "", 0.0001, "theory"),
        Claim("ratio of sizes at feedback 0.01, furthest from 1", 1.0, "ratio", 0.01, "theory"),
        Claim("clamped steps until every cosine is within 0.01 of the last", 2.0, "", 0.0, "theory"),
        Claim("contrastive-hebbian test error less that of backprop", 0.3, "%", 0.0, "own target", at_most=True),
    ),
    epochs=10,
    seeds=3,
    minutes=4.0,
    run=run,
)
