"""Finite differences against backprop, and on models that can only be evaluated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from anyprop import nets
from anyprop.contract import Batch
from anyprop.rules.exact import Backprop, FiniteDifferences


def both(rule, model, batch, key):
    gradients = (jax.jit(r.credit)(r.init(model, key=key), batch, key=key).grads for r in (rule, Backprop()))
    return [ravel_pytree(g)[0] for g in gradients]


def test_is_backprop_in_double_precision(x64, key):
    model = nets.mlp(4, 6, 5, 3, key=key)
    batch = Batch(jax.random.normal(key, (7, 4)), jnp.arange(7) % 3)
    quotient, gradient = both(FiniteDifferences(epsilon=1e-5), model, batch, key)
    assert np.linalg.norm(quotient - gradient) < 1e-6 * np.linalg.norm(gradient)


def test_the_error_falls_as_epsilon_squared(x64, key):
    model = nets.mlp(4, 6, 3, key=key)
    batch = Batch(jax.random.normal(key, (7, 4)), jnp.arange(7) % 3)
    errors = []
    for epsilon in (2e-2, 1e-2):
        quotient, gradient = both(FiniteDifferences(epsilon=epsilon), model, batch, key)
        errors.append(np.linalg.norm(quotient - gradient))
    np.testing.assert_allclose(errors[0] / errors[1], 4, rtol=1e-2)


def test_the_default_epsilon_suits_single_precision(key):
    model = nets.mlp(4, 6, 3, key=key)
    batch = Batch(jax.random.normal(key, (7, 4)), jnp.arange(7) % 3)

    def error(rule):
        quotient, gradient = both(rule, model, batch, key)
        return np.linalg.norm(quotient - gradient) / np.linalg.norm(gradient)

    at_default = error(FiniteDifferences())
    assert at_default < 1e-3
    assert at_default < error(FiniteDifferences(epsilon=1e-4))
    assert at_default < error(FiniteDifferences(epsilon=1e-1))


def test_sees_through_steps_that_have_no_derivative(key):
    def staircase(w, x):
        return jnp.round(100 * (x @ w)) / 100

    model = jax.tree_util.Partial(staircase, jnp.array([[1.0], [-2.0]]))
    batch = Batch(jax.random.normal(key, (500, 2)), jnp.zeros((500, 1)))
    rule = FiniteDifferences(epsilon=0.1, loss="squared-error")
    (gradient, _) = rule.credit(rule.init(model, key=key), batch, key=key).grads
    expected = batch.x.T @ (batch.x @ model.args[0]) / 500
    np.testing.assert_allclose(jax.tree.leaves(gradient)[0], expected, atol=5e-3)


@pytest.mark.parametrize("epsilon", [0.0, -1e-3, float("inf")])
def test_refuses_a_step_that_is_not_above_zero(epsilon):
    with pytest.raises(ValueError, match="epsilon must be a finite number above zero"):
        FiniteDifferences(epsilon=epsilon)
