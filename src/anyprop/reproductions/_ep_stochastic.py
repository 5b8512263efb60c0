"""Equilibrium propagation in heat: free energies, likelihood, and how strong a nudge has to be (Litman 2025).

1. Ten binary units, all states listed: where the link phi between expected cost and likelihood begins and ends, and
   that the difference of two means at a finite nudge is the gradient of a difference of free energies.
2. How many samples of both phases it takes to see the update through its noise, as the nudge gets weaker: of these ten
   units exactly, and of a small Hopfield network in Langevin dynamics as measured.
3. 784-50-10 on 5,000 images of MNIST, the same samples at a nudge of 1 and of 0.01. The published experiment is on
   Fashion-MNIST, with about 80 % of the answers right at a nudge of 1, and chance at 0.01.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from .. import data, nets
from ..contract import Batch
from ..diagnose import estimate
from ..energies import Binary, Enumeration
from ..rules.equilibrium import StochasticEquilibriumPropagation
from ..training import compare
from ._reproduction import Claim, Options, Reproduction, final_errors

UNITS, OUTPUTS = 10, 3
ANSWER = (1.0, 0.0, 1.0)
FINITE = 1.0
"""beta at which finite nudges are checked."""

FAR = 100.0
"""xi that stands for infinity: a wrong output costs at least 1/2, which leaves its states e^-50 of their weight."""

DRAWN = 10_000
"""Samples of each phase, held against the exact mean."""

BETAS = (0.01, 0.03, 0.1, 0.3, 1.0)
MEASURED = (0.01, 0.1, 1.0)
"""Nudges of the Hopfield network, whose signal-to-noise ratio is measured over UPDATES updates."""

UPDATES = 400

HEAT = {"temperature": 0.01, "samples": 10, "spacing": 5, "nudged_steps": 30, "free_steps": 50}
TRAINED = {f"beta {beta}": StochasticEquilibriumPropagation(beta, **HEAT) for beta in (1.0, 0.01)}

System = tuple[Enumeration, Float[Array, "units units"]]


def energy(weights: Float[Array, "units units"], beta: float, states: Float[Array, "states units"]) -> Array:
    """F = -<s, W s> + beta C of each state."""
    return -jnp.einsum("ki,ij,kj->k", states, weights, states) + beta * cost(states)


def cost(states: Float[Array, "states units"]) -> Float[Array, " states"]:
    """C = 1/2 |outputs - answer|^2 of each state."""
    return 0.5 * jnp.sum((states[:, -OUTPUTS:] - jnp.asarray(ANSWER)) ** 2, axis=1)


def listed(key: Key[Array, ""]) -> dict[str, Array]:
    """What enumeration says of a random system of ten units."""
    key_weights, key_along, key_free, key_nudged = jax.random.split(key, 4)
    states = jnp.asarray(Binary().states(UNITS))
    system = Enumeration(states)
    weights = jax.random.normal(key_weights, (UNITS, UNITS))
    agree = jnp.all(states[:, -OUTPUTS:] == jnp.asarray(ANSWER), axis=1)

    def link(weights: Array, xi: float | Array) -> Array:
        return system.link(partial(energy, weights, 0.0), cost, xi)

    def log_likelihood(weights: Array) -> Array:
        return jax.nn.logsumexp(-energy(weights, 0.0, states), where=agree) + system.free_energy(
            partial(energy, weights, 0.0)
        )

    def objective(weights: Array, beta: float) -> Array:
        free, nudged = (system.free_energy(partial(energy, weights, b)) for b in (0.0, beta))
        return (nudged - free) / beta

    def statistics(beta: float) -> tuple[Array, Array, Array]:
        """Probabilities, and mean and summed variance of dF/dW = -s s^T."""
        p = system.probabilities(partial(energy, weights, beta))
        mean = -jnp.einsum("k,ki,kj->ij", p, states, states)
        return p, mean, -jnp.sum(mean * (1 + mean))

    # How far the objective rises along a direction, where the difference of two means says that it rises.
    direction = jax.random.normal(key_along, weights.shape)
    rise = (objective(weights + 1e-5 * direction, FINITE) - objective(weights - 1e-5 * direction, FINITE)) / 2e-5
    (p_free, free, spread_free), (p_nudged, nudged, spread_nudged) = statistics(0.0), statistics(FINITE)
    exact = (nudged - free) / FINITE
    drawn = [
        -jnp.einsum("ki,kj->ij", s, s) / DRAWN
        for p, k in ((p_free, key_free), (p_nudged, key_nudged))
        for s in (states[jax.random.categorical(k, jnp.log(p), shape=(DRAWN,))],)
    ]
    error = jnp.sum(((drawn[1] - drawn[0]) / FINITE - exact) ** 2)
    start, expected = jax.grad(link, argnums=1)(weights, 0.0), p_free @ cost(states)
    end, likely = jax.grad(link)(weights, FAR), jax.grad(log_likelihood)(weights)

    def needed(beta: float) -> Array:
        """Samples of each phase until signal and noise of the update are equal."""
        _, mean, spread = statistics(beta)
        return (spread + spread_free) / jnp.sum((mean - free) ** 2)

    return {
        "slope of phi at 0 over minus the expected cost": -start / expected,
        "distance of dphi/dtheta at large xi from +dlog p/dtheta": jnp.linalg.norm(end - likely)
        / jnp.linalg.norm(likely),
        "rise of the free-energy difference over that predicted by the means": rise / jnp.vdot(exact, direction),
        "error of a sampled update over its standard error": jnp.sqrt(
            error * DRAWN * FINITE**2 / (spread_free + spread_nudged)
        ),
        "samples needed": jnp.stack([needed(beta) for beta in BETAS]),
    }


def measured_ratio(seed: int, beta: float) -> float:
    """The signal-to-noise ratio of an update of a small Hopfield network in Langevin dynamics."""
    key_net, key_x, key = jax.random.split(jax.random.key(seed), 3)
    rule = StochasticEquilibriumPropagation(beta, **HEAT)
    learner = rule.init(nets.mlp(8, 6, 4, activation="hard-sigmoid", output="hard-sigmoid", key=key_net), key=key_net)
    batch = Batch(jax.random.uniform(key_x, (10, 8)), jnp.arange(10) % 4)
    return float(estimate(rule, learner, batch, key=key, draws=UPDATES).snr["all"])


def run(options: Options) -> tuple[Mapping[str, Sequence[float]], dict[str, Any]]:
    """List, measure, train."""
    seeds = options.seeds or REPRODUCTION.seeds
    with jax.enable_x64(True):
        found = jax.jit(jax.vmap(listed))(jax.random.split(jax.random.key(0), seeds))
    found = {name: np.asarray(values) for name, values in found.items()}
    samples = found.pop("samples needed")
    ratios = {beta: [measured_ratio(seed, beta) for seed in range(seeds)] for beta in MEASURED}
    comparison = compare(
        TRAINED,
        partial(nets.mlp, 784, 50, 10, activation="hard-sigmoid", output="hard-sigmoid", init="glorot-uniform"),
        data.load("mnist", train_size=5000),
        optimizer=optax.adam(1e-3),
        epochs=options.epochs or REPRODUCTION.epochs,
        batch_size=50,
        seeds=seeds,
        alignment=False,
        out=options.out,
        resume=options.resume,
        settings={"optimizer": "adam", "learning_rate": 1e-3},
    )
    errors, details = final_errors(comparison)
    weaker = samples[:, 0] / samples[:, -1]
    measured = {name: values.tolist() for name, values in found.items()}
    measured |= {"samples needed at beta 0.01 over those at beta 1": weaker.tolist(), **errors}
    details |= {
        "samples for a signal-to-noise ratio of 1, ten binary units": {
            str(beta): column.tolist() for beta, column in zip(BETAS, samples.T, strict=True)
        },
        "signal-to-noise ratio of an update, 8-6-4 Hopfield": {str(beta): ratio for beta, ratio in ratios.items()},
    }
    return measured, details


REPRODUCTION = Reproduction(
    name="ep-stochastic",
    title="Free energies, likelihood and the strength of the nudge in stochastic equilibrium propagation",
    source=("litman2025", "scellier2017"),
    claims=(
        Claim("slope of phi at 0 over minus the expected cost", 1.0, "ratio", 1e-9, "theory"),
        Claim("distance of dphi/dtheta at large xi from +dlog p/dtheta", 0.0, "ratio", 1e-9, "theory", at_most=True),
        Claim("rise of the free-energy difference over that predicted by the means", 1.0, "ratio", 1e-6, "theory"),
        Claim("error of a sampled update over its standard error", 1.0, "ratio", 0.5, "theory"),
        # To first order in beta the signal grows as beta^2, and the noise does not change.
        Claim("samples needed at beta 0.01 over those at beta 1", 10_000.0, "ratio", 5_000.0, "theory"),
        Claim("beta 1.0 test error", 15.0, "%", 0.0, "own target", at_most=True),
        Claim("beta 0.01 test error", 90.0, "%", 10.0, "own target"),
    ),
    epochs=5,
    seeds=3,
    minutes=5.0,
    run=run,
)
