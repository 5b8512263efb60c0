"""The forward gradient's mean, its second moment, and the passes that it takes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from anyprop import nets
from anyprop.contract import Batch
from anyprop.rules.exact import Backprop, ForwardGradient

ESTIMATES = 100_000


def estimates(rule, model, batch, n):
    """The gradient, the mean of n estimates, and each estimate's squared norm over the gradient's."""
    key = jax.random.key(0)
    learner = rule.init(model, key=key)

    def flat(rule, key):
        return ravel_pytree(rule.credit(learner, batch, key=key).grads)[0]

    @jax.jit
    def collect(keys):
        gradient = flat(Backprop(loss=rule.loss), key)
        drawn = jax.lax.map(lambda key: flat(rule, key), keys, batch_size=2000)
        return gradient, drawn.mean(0), jnp.sum(drawn**2, axis=1) / jnp.sum(gradient**2)

    gradient, mean, squares = collect(jax.random.split(key, n))
    return gradient, mean, np.asarray(squares)


def cosine(a, b):
    return a @ b / jnp.linalg.norm(a) / jnp.linalg.norm(b)


def within_four_standard_errors(samples, expected):
    return abs(samples.mean() - expected) < 4 * samples.std() / np.sqrt(len(samples))


@pytest.mark.parametrize("perturb", ["weights", "activities"])
def test_its_mean_is_the_gradient(perturb, key):
    model = nets.mlp(4, 6, 3, key=key)  # 51 parameters
    batch = Batch(jax.random.normal(key, (4, 4)), jnp.arange(4) % 3)
    # On activities, which are fewer, a fifth of the draws gives the same precision.
    n = ESTIMATES if perturb == "weights" else ESTIMATES // 5
    gradient, mean, squares = estimates(ForwardGradient(perturb=perturb), model, batch, n)
    assert cosine(mean, gradient) > 0.999
    np.testing.assert_allclose(jnp.linalg.norm(mean), jnp.linalg.norm(gradient), rtol=1e-2)
    if perturb == "weights":
        assert within_four_standard_errors(squares, gradient.size + 2)
        assert squares.std() / np.sqrt(ESTIMATES) < 0.01 * gradient.size


def test_on_activities_the_noise_counts_units(key):
    # One example and one layer of 4 units: the estimate is outer(h, (e . xi) xi), whatever the 30 inputs.
    model = nets.mlp(30, 4, bias=False, key=key)
    batch = Batch(jax.random.normal(key, (1, 30)), jnp.array([1]))
    _, _, squares = estimates(ForwardGradient(perturb="activities"), model, batch, n=20_000)
    assert within_four_standard_errors(squares, 4 + 2)


@pytest.mark.parametrize("perturb", ["weights", "activities"])
def test_draws_divide_the_variance(perturb, key):
    model = nets.mlp(4, 2, key=key)
    batch = Batch(jax.random.normal(key, (2, 4)), jnp.arange(2))
    variances = []
    for draws in (1, 5):
        _, _, squares = estimates(ForwardGradient(perturb=perturb, draws=draws), model, batch, n=20_000)
        variances.append(squares.mean() - 1)
    np.testing.assert_allclose(variances[0] / variances[1], 5, rtol=0.1)


@pytest.mark.parametrize("perturb", ["weights", "activities"])
def test_one_draw_costs_what_backprop_costs(perturb, key):
    model = nets.mlp(100, 100, 100, 100, key=key)
    batch = Batch(jnp.ones((200, 100)), jnp.zeros(200, int))

    def products(rule):
        return jax.jit(rule.credit).lower(rule.init(model, key=key), batch, key=key).as_text().count("dot_general")

    # Beside as many matrix products it has directions to draw.
    assert products(ForwardGradient(perturb=perturb)) == products(Backprop()) == 8


def test_perturbs_convolutions_and_skips(key):
    k1, k2, k3 = jax.random.split(key, 3)
    body = nets.Residual([nets.Conv(2, 2, 3, activation="tanh", key=k2), nets.Norm(2)])
    stages = [nets.Conv(1, 2, 3, activation="tanh", key=k1), body, nets.Flatten(), nets.Dense(18, 2, key=k3)]
    model = nets.Chain(stages, input_shape=(3, 3, 1))
    batch = Batch(jax.random.normal(key, (2, 3, 3, 1)), jnp.arange(2))
    gradient, mean, _ = estimates(ForwardGradient(perturb="activities"), model, batch, n=4_000)
    assert cosine(mean, gradient) > 0.98


def test_takes_any_differentiable_model_in_weights(key):
    rule, batch = ForwardGradient(draws=2), Batch(jnp.ones((2, 5, 3)), jnp.arange(2))
    recurrent = nets.elman(3, 4, 2, steps=5, key=key)
    credit = jax.jit(rule.credit)(rule.init(recurrent, key=key), batch, key=key)
    assert jax.tree.structure(credit.grads) == jax.tree.structure(rule.init(recurrent, key=key).params)
    np.testing.assert_allclose(credit.output, recurrent(batch.x), rtol=1e-6)


def test_refuses_bad_input(key):
    class Lonely(eqx.Module):
        weight: jax.Array

        def __call__(self, x):
            return x @ self.weight

    with pytest.raises(ValueError, match="draws must be an integer of at least 1"):
        ForwardGradient(draws=0)
    rule = ForwardGradient(perturb="activities")
    with pytest.raises(TypeError, match=r"needs a chain, but model is a Lonely.*perturb='weights'"):
        rule.init(Lonely(jnp.ones((3, 2))), key=key)
    with pytest.raises(TypeError, match="one a time step"):
        rule.init(nets.elman(key=key), key=key)
