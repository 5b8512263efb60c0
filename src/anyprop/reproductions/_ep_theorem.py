"""The theorem of equilibrium propagation for any influence and any direction, on eight tanh units in double precision.

All units are coupled; two are the input and two the output, both held by springs (`SoftClamps`). Against the exact
gradient at rest, by the implicit function theorem: the error of the one-sided estimate is O(xi), that of the centred
one O(xi^2), for a pair (beta, delta) that nudges both ends at once, for one that trades them, and for supervised
learning. The weights are random, a seed each.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ..energies import Energy, GradientFlow, Relaxation, SoftClamps
from ..energies._theorem import Variant, influence_gradient, objective
from ._reproduction import Claim, Options, Reproduction

UNITS, ENDS, EXAMPLES = 8, 2, 4
"""Units in all, units of the input and of the output, and pairs of the two that are observed."""

PAIRS = {
    "both nudged": ((2.0, 0.7), (0.4, 1.3)),
    "supervised": ((5.0, 0.0), (0.0, 1.0)),
    "traded": ((0.5, 1.5), (1.0, -1.0)),
    "input": ((1.0, 1.0), (1.0, 0.0)),
}
"""(beta_x, beta_y) and delta, by name."""

SMALL = 1e-4
STEPS = (1e-3, 1e-2, 1e-1, 0.2, 0.5)
"""xi that the claims are about, and the others."""


class AllToAll(Energy):
    """Units that are all coupled, the first of them the input and the last of them the output.

    E = 1/2 ||s||^2 - sum_{i<j} W_ij tanh(s_i) tanh(s_j) - b . tanh(s)
    """

    weight: Float[Array, "units units"]
    bias: Float[Array, " units"]
    relaxation: Relaxation = eqx.field(default_factory=GradientFlow, kw_only=True)

    def energy(self, state: Array, x: Array) -> Float[Array, " batch"]:
        """Return E of each example."""
        s = jnp.concatenate([x, state], axis=1)
        r = jnp.tanh(s)
        return 0.5 * jnp.sum(s**2, axis=1) - jnp.sum((r @ jnp.triu(self.weight, 1)) * r, axis=1) - r @ self.bias

    def start(self, x: Array) -> Array:
        """Return zeros for every unit but the input."""
        return jnp.zeros((len(x), len(self.bias) - x.shape[1]))

    def output(self, state: Array) -> Array:
        """Return the last units."""
        return state[:, -ENDS:]


def errors(
    beta: Float[Array, "2"], direction: Float[Array, "2"], key: Key[Array, ""]
) -> dict[str, Float[Array, " steps"]]:
    """The relative errors of both estimates at every xi, for one random net."""
    keys = jax.random.split(key, 4)
    net = AllToAll(0.3 * jax.random.normal(keys[0], (UNITS, UNITS)), 0.3 * jax.random.normal(keys[1], (UNITS,)))
    clamps = SoftClamps(net)
    world = clamps.world(*(jax.random.normal(k, (EXAMPLES, ENDS)) for k in keys[2:]))
    system = clamps.start(world), world, GradientFlow(2000, 0.2, 1e-14)

    def flat(tree: SoftClamps) -> Array:
        return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)])

    exact = flat(eqx.filter_grad(lambda m: jnp.mean(objective(SoftClamps.total, m, beta, direction, *system)))(clamps))

    def error(variant: Variant, xi: float) -> Array:
        estimate = influence_gradient(SoftClamps.total, clamps, beta, direction, *system, xi=xi, variant=variant)
        return jnp.linalg.norm(flat(estimate) - exact) / jnp.linalg.norm(exact)

    variants: tuple[Variant, ...] = ("one-sided", "centred")
    return {variant: jnp.stack([error(variant, xi) for xi in (SMALL, *STEPS)]) for variant in variants}


def run(options: Options) -> tuple[Mapping[str, Sequence[float]], dict[str, Any]]:
    """Measure the errors on random nets."""
    keys = jax.random.split(jax.random.key(0), options.seeds or REPRODUCTION.seeds)
    measured: dict[str, list[float]] = {}
    details: dict[str, Any] = {"xi": [SMALL, *STEPS], "errors": {}}
    with jax.enable_x64(True):
        each = jax.jit(jax.vmap(errors, in_axes=(None, None, 0)))
        for name, (beta, direction) in PAIRS.items():
            found = jax.tree.map(np.asarray, each(jnp.asarray(beta), jnp.asarray(direction), keys))
            for variant, error in found.items():
                measured[f"{variant} error, {name}"] = error[:, 0].tolist()
                measured[f"slope of log {variant} error against log xi, {name}"] = (
                    np.log(error[:, 2] / error[:, 1]) / np.log(STEPS[1] / STEPS[0])
                ).tolist()
            details["errors"][name] = {variant: np.median(error, axis=0).tolist() for variant, error in found.items()}
    return measured, details


REPRODUCTION = Reproduction(
    name="ep-theorem",
    title="The gradient from two states at rest, for four influences and directions, in a soft-clamped Hopfield net",
    source=("scellier2017",),
    claims=tuple(
        claim
        for pair in PAIRS
        for claim in (
            Claim(f"one-sided error, {pair}", 9e-4, "ratio", 0.0, "theory", at_most=True),
            Claim(f"centred error, {pair}", 1.4e-6, "ratio", 0.0, "theory", at_most=True),
            Claim(f"slope of log one-sided error against log xi, {pair}", 1.0, "", 0.05, "theory"),
            Claim(f"slope of log centred error against log xi, {pair}", 2.0, "", 0.05, "theory"),
        )
    ),
    epochs=1,
    seeds=20,
    minutes=2.0,
    run=run,
)
