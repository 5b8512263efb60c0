"""The step size of alternating minimisation: its values, and its bound on errors that are known exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from anyprop.training._schedules import alternating_minimization_bound, alternating_minimization_schedule


def exact_errors(schedule, curvatures, noise, steps):
    """E |Delta^t|^2 for t = 0, 1, ..., of gradients curvature * Delta + noise, starting at Delta = 1 everywhere."""

    def step(squares, t):
        return (1 - schedule(t) * curvatures) ** 2 * squares + (schedule(t) * noise) ** 2, squares.sum()

    return jax.lax.scan(step, jnp.ones_like(curvatures), jnp.arange(steps))[1]


def test_the_step_size_is_the_theorems():
    schedule = alternating_minimization_schedule(xi=1.2, gamma=0.1, blocks=3)
    expected = [1.5 / ((2.4 - 0.6) * (t + 2) + 0.3) for t in (0, 1, 50)]
    np.testing.assert_allclose([schedule(t) for t in (0, 1, 50)], expected, rtol=1e-6)
    np.testing.assert_allclose(schedule(jnp.array([0, 1, 50])), expected, rtol=1e-6)


def test_the_bound_is_the_theorems():
    bound = alternating_minimization_bound(1.2, 0.1, 3, start=5.0, sigma2=7.0)
    expected = [5 * (2 / (t + 3)) ** 1.5 + 7 * 9 / (2.4 - 0.6) ** 2 / (t + 3) for t in (0, 1, 50)]
    np.testing.assert_allclose(bound(jnp.array([1, 2, 51])), expected, rtol=1e-6)


def test_it_is_a_learning_rate_of_optax():
    schedule = alternating_minimization_schedule(1.2, 0.1, 3)
    optimizer = optax.sgd(schedule)
    state = optimizer.init(jnp.ones(2))
    for t in range(3):
        updates, state = jax.jit(optimizer.update)(jnp.ones(2), state)
        np.testing.assert_allclose(updates, -schedule(t), rtol=1e-6)


@pytest.mark.parametrize("blocks", [1, 3])
def test_independent_blocks_stay_under_the_bound_and_come_within_a_factor_two(blocks, x64):
    """Where noise dominates, E |Delta|^2 -> (9/8) sigma^2 / (xi^2 t) and the bound -> (9/4) sigma^2 / (xi^2 t)."""
    xi, noise, steps = 0.8, 100.0, 20_000
    errors = exact_errors(alternating_minimization_schedule(xi, 0.0, blocks), jnp.full(blocks, xi), noise, steps)
    sigma2 = blocks * noise**2 + xi**2 * float(errors.max())  # The largest E |gradient|^2 on the way.
    bound = alternating_minimization_bound(xi, 0.0, blocks, start=float(blocks), sigma2=sigma2)
    ratios = errors / bound(jnp.arange(steps))
    assert np.all(ratios <= 1)
    np.testing.assert_allclose(ratios[-1], 0.5 * blocks * noise**2 / sigma2, rtol=0.01)


@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_another_step_size_does_not_stay_under_the_bound(factor, x64):
    """The bound says something: neither a smaller nor a larger rate keeps the promise."""
    xi, steps = 0.8, 20_000
    schedule = alternating_minimization_schedule(xi, 0.0, 2)
    noise = 0.01 if factor < 1 else 100.0
    errors = exact_errors(lambda t: factor * schedule(t), jnp.full(2, xi), noise, steps)
    bound = alternating_minimization_bound(xi, 0.0, 2, start=2.0, sigma2=2 * (noise**2 + xi**2))
    assert np.any(errors > bound(jnp.arange(steps)))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"xi": 0.0}, "xi must be a finite number above zero"),
        ({"xi": float("nan")}, "xi must be"),
        ({"gamma": -0.1}, "gamma must be"),
        ({"gamma": 0.4}, r"gamma=0\.4 must be below 2 xi / \(3 \(blocks - 1\)\) = 0\.4"),
        ({"blocks": 0}, "blocks must be an integer of at least 1"),
        ({"blocks": True}, "blocks must be an integer"),
    ],
)
def test_bad_arguments_are_named(arguments, match):
    arguments = {"xi": 1.2, "gamma": 0.1, "blocks": 3} | arguments
    with pytest.raises(ValueError, match=match):
        alternating_minimization_schedule(**arguments)
    with pytest.raises(ValueError, match=match):
        alternating_minimization_bound(**arguments, start=1.0, sigma2=1.0)


@pytest.mark.parametrize("name", ["start", "sigma2"])
def test_bad_sizes_are_named(name):
    with pytest.raises(ValueError, match=f"{name} must be"):
        alternating_minimization_bound(1.2, 0.1, 3, **({"start": 1.0, "sigma2": 1.0} | {name: -1.0}))
