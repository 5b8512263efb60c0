"""Updates of equilibrium propagation against gradients of backprop through time, step by step (Ernoult et al. 2019).

Random nets of tanh units, a seed each, on the first twenty images of MNIST, in double precision. P-1h and P-2h settle
in discrete time, EB-1h in continuous time with steps of 0.2. As published: 150 free steps, 10 nudged ones and a nudge
of 0.01 for P-1h. The other nets' steps are our own, and so is a factor of 0.4 on the weights of P-2h: with
those that are drawn it does not come to rest in discrete time, but goes on between two states.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

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
                curves = jax.tree.map(lambda a: a.reshape(steps, -1)[:, :1000:250], (full.updates, full.gradients))
                return full.differences(), less.differences(), full.free.residual.max(), curves

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
                        "curves_of_some_weights": [
                            {"updates": np.asarray(u).T.tolist(), "gradients": np.asarray(g).T.tolist()}
                            for u, g in zip(*map(jax.tree.leaves, curves), strict=True)
                        ],
                    }
    return measured, details


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
