import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp

from anyprop.energies import Binary, Enumeration, Gaussian

UNITS, OUTPUTS = 10, 3
ANSWER = np.array([1.0, 0.0, 1.0])
BETA = 0.7
T = 2.5


def binary(key):
    """A machine of ten units joined all to all, the states it may have, and the cost of its last three."""
    weights = jax.random.normal(key, (UNITS, UNITS))
    return weights, Enumeration(jnp.asarray(Binary().states(UNITS)), temperature=T)


def energy(weights):
    return lambda s: -jnp.einsum("ki,ij,kj->k", s, weights, s)


def cost(s):
    return 0.5 * jnp.sum((s[:, -OUTPUTS:] - ANSWER) ** 2, axis=1)


def nudged(weights, beta):
    return lambda s: energy(weights)(s) + beta * cost(s)


def by_hand(weights, states, beta):
    """All probabilities, and the mean of dF/dW, in NumPy."""
    states, weights = np.asarray(states), np.asarray(weights)
    total = -np.sum(states @ weights * states, axis=1) + beta * np.asarray(cost(states))
    p = np.exp(-(total - total.min()) / T)
    p /= p.sum()
    return p, -np.einsum("k,ki,kj->ij", p, states, states)


def test_the_link_begins_with_the_expected_cost_and_falls(x64, key):
    weights, ensemble = binary(key)
    p, _ = by_hand(weights, ensemble.states, 0.0)
    expected = p @ np.asarray(cost(ensemble.states))
    slope = jax.grad(lambda xi: ensemble.link(energy(weights), cost, xi))(0.0)
    np.testing.assert_allclose(slope, -expected / T, rtol=1e-12)
    np.testing.assert_allclose(ensemble.mean(energy(weights), cost), expected, rtol=1e-12)
    np.testing.assert_allclose(ensemble.probabilities(energy(weights)), p, rtol=1e-10)


def test_the_link_ends_with_the_likelihood_and_not_with_its_opposite(x64, key):
    weights, ensemble = binary(key)
    states = np.asarray(ensemble.states)
    agree = np.all(states[:, -OUTPUTS:] == ANSWER, axis=1)

    def log_likelihood(weights):
        total = -energy(weights)(ensemble.states) / T
        return logsumexp(total[agree]) - logsumexp(total)

    link, slope = jax.value_and_grad(lambda w: ensemble.link(energy(w), cost, 200.0))(weights)
    expected, gradient = jax.value_and_grad(log_likelihood)(weights)
    np.testing.assert_allclose(link, expected, rtol=1e-10)
    np.testing.assert_allclose(slope, gradient, atol=1e-10)
    assert np.max(np.abs(gradient)) > 0.1


def test_a_finite_nudge_gives_the_gradient_of_a_difference_of_free_energies(x64, key):
    weights, ensemble = binary(key)

    def objective(weights):
        free, up = (ensemble.free_energy(nudged(weights, beta)) for beta in (0.0, BETA))
        return (up - free) / BETA

    means = [by_hand(weights, ensemble.states, beta)[1] for beta in (0.0, BETA)]
    found = jax.grad(objective)(weights)
    np.testing.assert_allclose(found, (means[1] - means[0]) / BETA, atol=1e-12)
    direction = jax.random.normal(jax.random.key(1), weights.shape)
    rise = objective(weights + 1e-5 * direction) - objective(weights - 1e-5 * direction)
    np.testing.assert_allclose(jnp.vdot(found, direction), rise / 2e-5, rtol=1e-8)
    along_the_link = jax.grad(lambda w: -T / BETA * ensemble.link(energy(w), cost, BETA))(weights)
    np.testing.assert_allclose(along_the_link, found, atol=1e-12)


def test_samples_have_that_gradient_as_their_mean(x64, key):
    weights, ensemble = binary(key)
    states, draws = np.asarray(ensemble.states), 5_000
    mean, variance = 0.0, 0.0
    for sign, beta, seed in ((1, BETA, 1), (-1, 0.0, 2)):
        logits = jnp.log(ensemble.probabilities(nudged(weights, beta)))
        drawn = states[jax.random.categorical(jax.random.key(seed), logits, shape=(draws,))]
        pairs = -np.einsum("ki,kj->ij", drawn, drawn) / draws
        mean += sign * pairs / BETA
        variance += -pairs * (1 + pairs) / draws / BETA**2  # each -s_i s_j is 0 or -1
    exact = jax.grad(lambda w: (ensemble.free_energy(nudged(w, BETA)) - ensemble.free_energy(nudged(w, 0.0))) / BETA)(
        weights
    )
    distance = np.abs(mean - exact) / np.sqrt(variance + 1e-12)
    assert np.max(distance) < 4.5  # 55 different numbers
    assert np.sqrt(np.mean(distance**2)) > 0.3  # standard errors of the right size


def test_a_gaussian_is_what_integration_over_a_grid_finds(x64):
    temperature, (k, b) = 0.6, (jnp.asarray([[2.0, 0.7], [0.7, 1.5]]), jnp.asarray([0.4, -1.0]))

    def energy(s):
        return 0.5 * jnp.sum(s * (s @ k), axis=1) - s @ b + 0.3

    def cost(s):
        return 0.5 * jnp.sum((s - 1.0) ** 2, axis=1)

    axis = jnp.linspace(-9.0, 9.0, 301)
    grid = jnp.stack(jnp.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    cell = temperature * jnp.log((axis[1] - axis[0]) ** 2)
    listed, exact = Enumeration(grid, temperature=temperature), Gaussian(2, temperature=temperature)
    np.testing.assert_allclose(exact.free_energy(energy), listed.free_energy(energy) - cell, rtol=1e-10)
    np.testing.assert_allclose(exact.mean(energy, cost), listed.mean(energy, cost), rtol=1e-10)
    np.testing.assert_allclose(exact.link(energy, cost, 3.0), listed.link(energy, cost, 3.0), rtol=1e-10)
    for unit in range(2):
        mean = exact.mean(energy, lambda s, unit=unit: s[:, unit])
        np.testing.assert_allclose(mean, np.linalg.solve(k, b)[unit], rtol=1e-12)


def test_an_energy_without_a_minimum_has_no_free_energy(x64):
    assert np.isnan(Gaussian(2).free_energy(lambda s: s[:, 0] ** 2 - s[:, 1] ** 2))


def test_numbers_out_of_range_are_refused():
    with pytest.raises(ValueError, match="temperature"):
        Enumeration(jnp.ones((2, 1)), temperature=0.0)
    with pytest.raises(ValueError, match="units"):
        Gaussian(0)
