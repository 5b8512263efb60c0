"""The error bound of alternating minimisation: the constants of its random problems, and a small run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anyprop.reproductions import Options
from anyprop.reproductions import _am_theory as theory

draw = jax.jit(theory.draw)


@pytest.fixture
def problem(x64, key):
    return draw(key)


def test_the_constants_hold(problem):
    blocks = problem.hessian.reshape(theory.BLOCKS, theory.SIZE, theory.BLOCKS, theory.SIZE)
    for d in range(theory.BLOCKS):
        for i in range(theory.BLOCKS):
            if d == i:
                curvatures = np.linalg.eigvalsh(blocks[d, :, d])
                np.testing.assert_allclose(curvatures[[0, -1]], [theory.LOWEST, theory.HIGHEST])
            else:
                np.testing.assert_allclose(np.linalg.norm(blocks[d, :, i], 2), theory.GAMMA)
    np.testing.assert_allclose(problem.hessian, problem.hessian.T, rtol=1e-12)
    assert np.linalg.eigvalsh(problem.hessian)[0] > 0
    np.testing.assert_allclose(np.linalg.norm(problem.start - problem.best, axis=1), theory.RADIUS / 2)


def test_sigma2_bounds_the_mean_square_of_sample_gradients(problem):
    keys = jax.random.split(jax.random.key(1), 2)
    away = jax.random.normal(keys[0], (200, theory.BLOCKS, theory.SIZE))
    thetas = problem.best + theory.RADIUS * away / jnp.linalg.norm(away, axis=2, keepdims=True)
    x = jax.random.normal(keys[1], (1000, theory.BLOCKS, theory.SIZE))
    gradient = jax.vmap(jax.vmap(jax.grad(theory.cost, 1), (None, None, 0)), (None, 0, None))
    mean_squares = jnp.mean(jnp.sum(gradient(problem, thetas, x) ** 2, axis=(2, 3)), axis=1)
    assert np.all(mean_squares <= problem.sigma2)
    assert mean_squares.max() > 0.5 * problem.sigma2


def test_a_block_moves_by_its_gradient_with_the_blocks_before_it_moved_and_stays_in_its_ball(problem):
    x = jax.random.normal(jax.random.key(1), problem.best.shape)
    hessian = problem.hessian.reshape(theory.BLOCKS, theory.SIZE, -1)
    theta, expected = problem.start, np.array(problem.start)
    for rate in (1e-3, 10.0, 10.0):
        for d in range(theory.BLOCKS):
            gradient = hessian[d] @ (expected - problem.best).ravel() - theory.NOISE * x[d]
            away = expected[d] - rate * gradient - problem.start[d]
            expected[d] = problem.start[d] + away * min(1.0, theory.RADIUS / 2 / np.linalg.norm(away))
        theta = theory.turn(problem, theta, x, rate)
        np.testing.assert_allclose(theta, expected)


def test_a_small_run(tmp_path, monkeypatch):
    monkeypatch.setattr(theory, "EPOCH", 200)
    monkeypatch.setattr(theory, "REPLICAS", 64)
    measured, details = theory.run(Options(tmp_path, epochs=1, seeds=2))
    bounded = [claim.what for claim in theory.REPRODUCTION.claims if claim.at_most and claim.what in measured]
    assert len(bounded) == 4
    for what in bounded:
        assert len(measured[what]) == 2
        assert 0 < max(measured[what]) <= 1
    assert max(measured["error over bound after 101 steps"]) > 0.02  # The bound is not met by a long way.
    assert (tmp_path / "error.png").stat().st_size > 10_000
    assert np.shape(details["curves"]["measured"]) == (2, len(details["curves"]["steps"]))
