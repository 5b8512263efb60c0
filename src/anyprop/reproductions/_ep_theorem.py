"""The theorem of equilibrium propagation for any influence and any direction, on eight tanh units in double precision.

All units are coupled; two are the input and two the output, both held by springs (`SoftClamps`). Against the exact
gradient at rest, by the implicit function theorem: the error of the one-sided estimate is O(xi), that of the centred
one O(xi^2), for a pair (beta, delta) that nudges both ends at once, for one that trades them, and for supervised
learning. The weights are random, a seed each.

With the input clamped for good, N nudges on a circle of radius r in the complex plane give the derivative with an
error of O(r^N), as long as the state at rest is analytic within the circle (Laborieux and Zenke 2022). The errors to
come near are those that were once found of another such net.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from ..contract import Batch, exact_gradient
from ..energies import Energy, GradientFlow, Relaxation, SoftClamps
from ..energies._theorem import Variant, influence_gradient, objective
from ..rules.equilibrium import HolomorphicEquilibriumPropagation
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

RADII = (0.05, 0.1, 0.2, 0.5)
POINTS = (2, 4, 6, 8, 12)
KNOWN = {2: 1.5e-2, 4: 1.7e-4, 6: 1.7e-6, 8: 1e-8}
"""The error of another net at the first radius, by the number of points. At the last radius it did not converge."""

SETTLING = 2000
SETTLED: dict[str, Any] = {"step_size": 0.2, "tolerance": 1e-14}
"""Steps of a phase, at most, and how it is run."""


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


def draw(key: Key[Array, ""]) -> tuple[AllToAll, tuple[Array, Array]]:
    """A random net, and what is observed of its input and of its output."""
    keys = jax.random.split(key, 4)
    net = AllToAll(0.3 * jax.random.normal(keys[0], (UNITS, UNITS)), 0.3 * jax.random.normal(keys[1], (UNITS,)))
    x, y = (jax.random.normal(k, (EXAMPLES, ENDS)) for k in keys[2:])
    return net, (x, y)


def relative(estimate: PyTree, exact: PyTree) -> Float[Array, ""]:
    """The length of the difference, over that of what is exact."""
    estimate, exact = (jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(g)]) for g in (estimate, exact))
    return jnp.linalg.norm(estimate - exact) / jnp.linalg.norm(exact)


def errors(
    beta: Float[Array, "2"], direction: Float[Array, "2"], key: Key[Array, ""]
) -> dict[str, Float[Array, " steps"]]:
    """The relative errors of both estimates at every xi, for one random net."""
    net, observed = draw(key)
    clamps = SoftClamps(net)
    world = clamps.world(*observed)
    system = clamps.start(world), world, GradientFlow(SETTLING, **SETTLED)
    exact = eqx.filter_grad(lambda m: jnp.mean(objective(SoftClamps.total, m, beta, direction, *system)))(clamps)

    def error(variant: Variant, xi: float) -> Array:
        estimate = influence_gradient(SoftClamps.total, clamps, beta, direction, *system, xi=xi, variant=variant)
        return relative(estimate, exact)

    variants: tuple[Variant, ...] = ("one-sided", "centred")
    return {variant: jnp.stack([error(variant, xi) for xi in (SMALL, *STEPS)]) for variant in variants}


def holomorphic_errors(points: int, key: Key[Array, ""]) -> Float[Array, " radii"]:
    """The relative errors of the derivative from so many points on circles of all radii, for one random net."""
    net, observed = draw(key)
    batch = Batch(*observed)
    rule = HolomorphicEquilibriumPropagation(points=points, free_steps=SETTLING, nudged_steps=SETTLING, **SETTLED)
    learner = rule.init(net, key=key)
    exact = exact_gradient(rule.loss, learner.model, batch)[2]

    def error(radius: Float[Array, ""]) -> Array:
        # As an array, the radius is no constant of the program: one is compiled for all radii.
        circle = eqx.tree_at(lambda rule: rule.radius, rule, radius)
        return relative(circle.credit(learner, batch, key=key).grads, exact)

    return jax.vmap(error)(jnp.asarray(RADII))


def run(options: Options) -> tuple[Mapping[str, Sequence[float]], dict[str, Any]]:
    """Measure the errors on random nets."""
    keys = jax.random.split(jax.random.key(0), options.seeds or REPRODUCTION.seeds)
    measured: dict[str, list[float]] = {}
    with jax.enable_x64(True):
        each = jax.jit(jax.vmap(errors, in_axes=(None, None, 0)))
        pairs = {name: each(*map(jnp.asarray, pair), keys) for name, pair in PAIRS.items()}
        circle = jax.jit(jax.vmap(holomorphic_errors, in_axes=(None, 0)), static_argnums=0)
        circles = {points: np.asarray(circle(points, keys)) for points in POINTS}
    pairs = jax.tree.map(np.asarray, pairs)
    for name, found in pairs.items():
        for variant, error in found.items():
            measured[f"{variant} error, {name}"] = error[:, 0].tolist()
            measured[f"slope of log {variant} error against log xi, {name}"] = (
                np.log(error[:, 2] / error[:, 1]) / np.log(STEPS[1] / STEPS[0])
            ).tolist()
    for points, error in circles.items():
        for column in (0, -1):
            measured[holomorphic(points, RADII[column])] = np.log10(error[:, column]).tolist()
        measured[f"slope of log holomorphic error against log radius, {points} points"] = (
            np.log(error[:, 1] / error[:, 0]) / np.log(RADII[1] / RADII[0])
        ).tolist()
    plot(pairs, circles, options.out / "error.png")
    details = {
        "xi": [SMALL, *STEPS],
        "errors": {
            name: {variant: np.median(error, axis=0).tolist() for variant, error in found.items()}
            for name, found in pairs.items()
        },
        "radii": list(RADII),
        "holomorphic_errors": {str(points): np.median(error, axis=0).tolist() for points, error in circles.items()},
    }
    return measured, details


def holomorphic(points: int, radius: float) -> str:
    """What is measured on a circle. Its mean over nets is of logarithms, so that no single net is all of it."""
    return f"log10 of holomorphic error at radius {radius}, {points} points"


def plot(pairs: Mapping[str, Mapping[str, np.ndarray]], circles: Mapping[int, np.ndarray], path: Path) -> None:
    """Save the errors against xi, of all pairs, and against the number of points, of all radii.

    Args:
        pairs: by pair and variant, (nets, xi).
        circles: by the number of points, (nets, radii).
        path: the file. Lines are geometric means over nets, and bands reach from the lowest to the highest.
    """
    # matplotlib takes long to import, so it waits until there is something to draw.
    from ..report._plots import _draw, _figure, _legend, _save, _span_axis, _value_axis, looks
    from ..report._records import Curve

    variants = next(iter(pairs.values()))
    nudged = {variant: np.concatenate([found[variant] for found in pairs.values()]) for variant in variants}
    turned = np.stack(list(circles.values()), axis=-1)
    circled = {f"holomorphic, radius {radius}": turned[:, k] for k, radius in enumerate(RADII)}
    look = looks([*nudged, *circled])
    figure, axes = _figure(8.0, 3.6, columns=2)
    panels = (("xi", (SMALL, *STEPS), nudged), ("Points on the circle", tuple(circles), circled))
    for ax, (across, at, drawn) in zip(axes, panels, strict=True):
        for name, error in drawn.items():
            mean = np.exp(np.log(error).mean(0))
            _draw(ax, Curve(np.asarray(at), mean, error.min(0), error.max(0)), look[name])
        _value_axis(ax, "Relative error of the gradient", [float(e) for error in drawn.values() for e in error.ravel()])
        ax.set_xlabel(across)
    _span_axis(axes[0], "x", [SMALL, *STEPS], unit="")
    axes[1].set_xticks(list(circles))
    axes[1].set_ylabel("")
    _legend(figure, list(look), look)
    _save(figure, path)


REPRODUCTION = Reproduction(
    name="ep-theorem",
    title="The gradient from two states at rest, for four influences, and from nudges on a circle, in a Hopfield net",
    source=("scellier2017", "laborieux2022"),
    claims=(
        *(
            claim
            for pair in PAIRS
            for claim in (
                Claim(f"one-sided error, {pair}", 9e-4, "ratio", 0.0, "theory", at_most=True),
                Claim(f"centred error, {pair}", 1.4e-6, "ratio", 0.0, "theory", at_most=True),
                Claim(f"slope of log one-sided error against log xi, {pair}", 1.0, "", 0.05, "theory"),
                Claim(f"slope of log centred error against log xi, {pair}", 2.0, "", 0.05, "theory"),
            )
        ),
        *(
            claim
            for points, error in KNOWN.items()
            for claim in (
                # (r / R)^N, where R, as far as the state is analytic, is within a factor of two of the other net's.
                Claim(
                    holomorphic(points, RADII[0]), round(math.log10(error), 2), "", round(0.301 * points, 1), "theory"
                ),
                Claim(
                    f"slope of log holomorphic error against log radius, {points} points",
                    float(points),
                    "",
                    0.1,
                    "theory",
                ),
            )
        ),
        Claim(holomorphic(max(KNOWN), RADII[-1]), 0.0, "", 1.0, "theory"),
    ),
    epochs=1,
    seeds=20,
    minutes=2.0,
    run=run,
)
