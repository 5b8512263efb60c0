"""Updates of equilibrium propagation against gradients of backprop through time, step by step (Ernoult et al. 2019).

Random nets of tanh units, a seed each, on the first twenty images of MNIST, in double precision. P-1h and P-2h settle
in discrete time, EB-1h in continuous time with steps of 0.2. As published: 150 free steps, 10 nudged ones and a nudge
of 0.01 for P-1h. The other nets' steps are our own, and so is a factor of 0.4 on the weights of P-2h: with
those that are drawn it does not come to rest in discrete time, but goes on between two states.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import data, nets
from ..contract import Batch
from ..diagnose import gradient_descending_updates
from ..energies import Convergent, Energy, FixedPoint, GradientFlow, Hopfield
from ._reproduction import Claim, Options, Reproduction

BETA = 0.01
NETS = {
    "P-1h": (1, 1.0, 10, FixedPoint(150)),
    "P-2h": (2, 0.4, 20, FixedPoint(400)),
    "EB-1h": (1, 1.0, 40, GradientFlow(800, 0.2)),
}
"""Hidden layers, a factor on the weights, nudged steps, and the free phase, by name."""

EXAMPLES = 20


def build(name: str, seed: int) -> Energy:
    """A net of a seed."""
    hidden, scale, _, phase = NETS[name]
    sizes = (784, *[512] * hidden, 10)
    chain = nets.mlp(*sizes, activation="tanh", output="tanh", init="glorot-uniform", key=jax.random.key(seed))
    chain = jax.tree.map(lambda w: scale * w, chain)
    return (Convergent if name.startswith("P") else Hopfield)(chain, relaxation=phase)


def run(options: Options) -> tuple[Mapping[str, Sequence[float]], dict[str, Any]]:
    """Compare the two at every step."""
    mnist = data.load("mnist").shaped((784,))
    measured: dict[str, list[float]] = {}
    details: dict[str, Any] = {}
    with jax.enable_x64(True):
        x = jnp.asarray(mnist.transform(mnist.train.x[:EXAMPLES]), float)
        batch = Batch(x, jnp.asarray(mnist.train.y[:EXAMPLES]))
        for name, (_, _, steps, _) in NETS.items():

            @jax.jit
            def compare(seed: int, name: str = name, steps: int = steps) -> Any:
                model = build(name, seed)
                full, less = (gradient_descending_updates(model, batch, beta=b, steps=steps) for b in (BETA, BETA / 10))
                pairs = jax.tree.map(largest, full.updates, full.gradients)
                curves = jax.tree.leaves(pairs, is_leaf=lambda node: isinstance(node, dict))
                differences = full.differences()
                named = dict(zip(differences, curves, strict=True))
                return differences, less.differences(), full.free.residual.max(), named

            for seed in range(options.seeds or REPRODUCTION.seeds):
                full, less, residual, curves = compare(seed)
                rows = {
                    f"{name} difference of updates and gradients": 100 * max(map(float, full.values())),
                    f"{name} difference at a tenth of the nudge": max(float(less[k] / full[k]) for k in full),
                }
                for what, value in rows.items():
                    measured.setdefault(what, []).append(value)
                if not seed:
                    details[name] = {
                        "free_residual": float(residual),
                        "differences": {k: float(v) for k, v in full.items()},
                        "curves": jax.tree.map(lambda a: a.T.tolist(), curves),
                    }
    plot({name: found["curves"] for name, found in details.items()}, options.out / "steps.png")
    return measured, details


def largest(updates: Float[Array, "steps ..."], gradients: Float[Array, "steps ..."]) -> dict[str, Array]:
    """Return the curves of the four parameters of an array whose gradients, over all steps, are the largest."""
    updates, gradients = (a.reshape(len(a), -1) for a in (updates, gradients))
    chosen = jnp.argsort(-jnp.linalg.norm(gradients, axis=0))[:4]
    return {"updates": updates[:, chosen], "gradients": gradients[:, chosen]}


def plot(curves: Mapping[str, Mapping[str, Mapping[str, Sequence[Sequence[float]]]]], path: Path) -> None:
    """Save the curves of one weight of each layer, over the largest of its gradients.

    Args:
        curves: by net and array of parameters, the `updates` and `gradients` of some of them, at each step.
        path: the file.
    """
    # matplotlib takes long to import, so it waits until there is something to draw.
    from ..report._plots import _draw, _figure, _legend, _save, looks
    from ..report._records import Curve

    weights = {net: [pair for path, pair in of.items() if path.endswith("weight")] for net, of in curves.items()}
    layers = [f"layer {l + 1}" for l in range(max(map(len, weights.values())))]
    look = looks(["backprop", *layers])
    # Dots on top of the other curves, which would hide a line below.
    look["backprop through time"] = look.pop("backprop")._replace(marker="", dash=":")
    figure, axes = _figure(9.0, 3.4, columns=len(weights))
    for ax, (net, pairs) in zip(axes, weights.items(), strict=True):
        for layer, pair in zip(layers, pairs, strict=False):  # the nets differ in depth
            update, gradient = (np.array(pair[kind][0]) for kind in ("updates", "gradients"))
            size = np.abs(gradient).max()
            for name, values in ((layer, update / size), ("backprop through time", gradient / size)):
                _draw(ax, Curve(np.arange(len(values)), values, values, values), look[name])
        ax.set_xlabel(f"Step of {net}")
    axes[0].set_ylabel("Change of a weight")
    _legend(figure, [*layers, "backprop through time"], look)
    _save(figure, path)


REPRODUCTION = Reproduction(
    name="gdu",
    title="Each step of a nudged phase updates weights as backprop through time would, in three nets of tanh units",
    source=("ernoult2019",),
    claims=tuple(
        claim
        for name in NETS
        for claim in (
            Claim(f"{name} difference of updates and gradients", 5.0, "%", 0.0, "own target", at_most=True),
            Claim(f"{name} difference at a tenth of the nudge", 0.1, "ratio", 0.02, "theory"),
        )
    ),
    epochs=1,
    seeds=3,
    minutes=5.0,
    run=run,
)
