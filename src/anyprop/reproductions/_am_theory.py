"""The error bound of stochastic alternating minimisation, measured (Choromanska et al. 2019, theorem 3.2).

K blocks of n parameters descend in turns on a stream of random quadratics, every block with the blocks before
it already moved:

    L(theta; x) = Delta^T H Delta / 2 - s x . Delta,   Delta = theta - theta*,   x ~ N(0, I)
    theta_d^{t+1} = Pi_d(theta_d^t - eta^t grad_d L(theta_1^{t+1}, .., theta_{d-1}^{t+1}, theta_d^t, ..; x_t))

Pi_d projects on the ball of radius r/2 around the start, which lies at distance r/2 from theta_d*, so that no
block is ever farther than r from its optimum. The theorem's constants are known:

- H_dd has eigenvalues from lambda to mu in every block, so xi = 2 mu lambda / (mu + lambda).
- With Delta_d fixed, the mean gradient in block d differs by sum_{i != d} H_di Delta_i from that with the
  others at the optimum. Its norm is at most max_i |H_di| sum_{i != d} |Delta_i|, with equality where only the
  block of the largest H_di is off; every H_di has spectral norm gamma, half of what the theorem allows.
- As (K-1) gamma = xi / 3 < lambda, H is positive definite, and theta* is the only optimum.
- The sample gradient in block d is H_d Delta - s x_d, where H_d are the block's rows, of mean square
  |H_d Delta|^2 + s^2 n. As |Delta|^2 <= K r^2, sigma^2 <= sum_d |H_d|^2 K r^2 + s^2 K n.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

from ..training import alternating_minimization_bound, alternating_minimization_schedule
from ._reproduction import Claim, Options, Reproduction

BLOCKS, SIZE = 3, 4
"""K and n."""

LOWEST, HIGHEST = 1.0, 2.0
"""lambda and mu: strong convexity and smoothness of the cost in each block."""

XI = 2 * HIGHEST * LOWEST / (HIGHEST + LOWEST)
GAMMA = 0.5 * 2 * XI / (3 * (BLOCKS - 1))
NOISE = 2.0
"""s: how far the optimum of a single sample lies from theta*, through H."""

RADIUS = 1.0
"""r: the farthest that a block can come from its optimum."""

EPOCH = 1000
"""Samples that count as a pass: the stream has no end."""

REPLICAS = 256
"""Streams of samples that the expectation is taken over."""

CHECKED = (1, 11, 101, 2000, 10_000)
"""Numbers of steps after which the error is held against the bound."""


class Problem(eqx.Module):
    """A quadratic whose constants and optimum are known.

    Args:
        hessian: H.
        best: theta*.
        start: theta^0.
    """

    hessian: Float[Array, "parameters parameters"]
    best: Float[Array, "blocks size"]
    start: Float[Array, "blocks size"]

    @property
    def sigma2(self) -> Float[Array, ""]:
        """sigma^2, a bound on the mean square of the sample gradients within the balls."""
        rows = jnp.linalg.norm(self.hessian.reshape(BLOCKS, SIZE, -1), 2, axis=(1, 2))
        return jnp.sum(rows**2) * BLOCKS * RADIUS**2 + NOISE**2 * BLOCKS * SIZE


def draw(key: Key[Array, ""]) -> Problem:
    """Draw a problem with the constants XI and GAMMA."""
    key_bases, key_coupling, key_best, key_away = jax.random.split(key, 4)
    bases = jax.random.orthogonal(key_bases, SIZE, (BLOCKS,))
    coupling = jax.random.normal(key_coupling, (BLOCKS, BLOCKS, SIZE, SIZE))
    coupling *= GAMMA / jnp.linalg.norm(coupling, 2, axis=(2, 3), keepdims=True)

    def block(d: int, i: int) -> Array:
        if d == i:
            return (bases[d] * jnp.linspace(LOWEST, HIGHEST, SIZE)) @ bases[d].T
        return coupling[d, i] if d < i else coupling[i, d].T

    hessian = jnp.block([[block(d, i) for i in range(BLOCKS)] for d in range(BLOCKS)])
    best = jax.random.normal(key_best, (BLOCKS, SIZE))
    away = jax.random.normal(key_away, (BLOCKS, SIZE))
    return Problem(hessian, best, best + RADIUS / 2 * away / jnp.linalg.norm(away, axis=1, keepdims=True))


def cost(problem: Problem, theta: Float[Array, "blocks size"], x: Float[Array, "blocks size"]) -> Float[Array, ""]:
    """L(theta; x)."""
    delta = (theta - problem.best).ravel()
    return delta @ problem.hessian @ delta / 2 - NOISE * x.ravel() @ delta


def turn(problem: Problem, theta: Array, x: Array, rate: ArrayLike) -> Float[Array, "blocks size"]:
    """Move every block once, first to last, on one sample."""
    for d in range(BLOCKS):
        moved = theta[d] - rate * jax.grad(cost, argnums=1)(problem, theta, x)[d]
        away = optax.projections.projection_l2_ball(moved - problem.start[d], RADIUS / 2)
        theta = theta.at[d].set(problem.start[d] + away)
    return theta


@eqx.filter_jit
def mean_errors(problem: Problem, steps: int, replicas: int, key: Key[Array, ""]) -> Float[Array, " steps"]:
    """The mean over streams of sum_d |Delta_d|^2, after 1, 2, ..., `steps` steps."""
    schedule = alternating_minimization_schedule(XI, GAMMA, BLOCKS)

    def step(thetas: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        t, key = now
        x = jax.random.normal(key, thetas.shape)
        thetas = jax.vmap(turn, (None, 0, 0, None))(problem, thetas, x, schedule(t))
        return thetas, jnp.mean(jnp.sum((thetas - problem.best) ** 2, axis=(1, 2)))

    start = jnp.broadcast_to(problem.start, (replicas, BLOCKS, SIZE))
    return jax.lax.scan(step, start, (jnp.arange(steps), jax.random.split(key, steps)))[1]


def run(options: Options) -> tuple[Mapping[str, Sequence[float]], dict[str, Any]]:
    """Measure the error on random problems, a seed each, and hold it against the bound."""
    steps = EPOCH * (options.epochs or REPRODUCTION.epochs)
    seeds = options.seeds or REPRODUCTION.seeds
    with jax.enable_x64(True):
        key_problems, key_streams = jax.random.split(jax.random.key(0))
        problems = eqx.filter_jit(jax.vmap(draw))(jax.random.split(key_problems, seeds))
        each = eqx.filter_vmap(mean_errors, in_axes=(0, None, None, 0))
        found = np.asarray(each(problems, steps, REPLICAS, jax.random.split(key_streams, seeds)))
        taken = np.arange(1, steps + 1)
        start = BLOCKS * (RADIUS / 2) ** 2
        bounds = np.stack(
            [
                alternating_minimization_bound(XI, GAMMA, BLOCKS, start=start, sigma2=float(sigma2))(taken)
                for sigma2 in jax.vmap(lambda problem: problem.sigma2)(problems)
            ]
        )
    ratios = found / bounds
    measured = {f"error over bound after {t} steps": ratios[:, t - 1].tolist() for t in CHECKED if t <= steps}
    measured["largest error over bound at any step"] = ratios.max(axis=1).tolist()
    late = slice(steps // 10, None)
    slopes = [float(np.polyfit(np.log(taken[late]), np.log(error[late]), 1)[0]) for error in found]
    measured["slope of log error against log steps, last nine tenths"] = slopes

    shown = np.unique(np.geomspace(1, steps, 60).round().astype(int))
    curves = {"bound": bounds[:, shown - 1], "measured": found[:, shown - 1]}
    plot(shown, curves, options.out / "error.png")
    details = {
        "settings": {
            "blocks": BLOCKS, "block_size": SIZE, "lambda": LOWEST, "mu": HIGHEST, "xi": XI, "gamma": GAMMA,
            "noise": NOISE, "radius": RADIUS, "replicas": REPLICAS, "steps": steps,
        },
        "curves": {"steps": shown.tolist(), **{name: values.tolist() for name, values in curves.items()}},
    }  # fmt: skip
    return measured, details


def plot(steps: np.ndarray, curves: Mapping[str, np.ndarray], path: Path) -> None:
    """Save the curves, (problems, steps) each, as a mean and a band from the lowest problem to the highest."""
    # matplotlib takes long to import, so it waits until there is something to draw.
    from ..report._plots import _draw, _figure, _label_ends, _save, _span_axis, _value_axis, looks
    from ..report._records import Curve

    drawn = {name: Curve(steps, v.mean(0), v.min(0), v.max(0)) for name, v in curves.items()}
    look = looks(list(drawn))
    figure, (ax,) = _figure(8.0, 4.0)
    for name, curve in drawn.items():
        _draw(ax, curve, look[name])
    _value_axis(ax, "Squared distance from the optimum", [float(v) for each in curves.values() for v in each.ravel()])
    _span_axis(ax, "x", [float(step) for step in steps], unit="")
    ax.set_xlabel("Steps taken")
    _label_ends(ax, drawn, look)
    _save(figure, path)


REPRODUCTION = Reproduction(
    name="am-theory",
    title="The error bound of stochastic alternating minimisation on random strongly convex block quadratics",
    source=("choromanska2019",),
    claims=(
        *(Claim(f"error over bound after {t} steps", 1.0, "ratio", 0.0, "theory", at_most=True) for t in CHECKED),
        Claim("largest error over bound at any step", 1.0, "ratio", 0.0, "theory", at_most=True),
        Claim("slope of log error against log steps, last nine tenths", -1.0, "", 0.1, "theory"),
    ),
    epochs=10,
    seeds=16,
    minutes=1.0,
    run=run,
)
