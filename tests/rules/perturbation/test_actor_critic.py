"""Actor-critic inside a network, against all 2^10 states of a net with ten hidden units."""

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import pytest
from enumeration import exact_gradient_of_expected_cost, example, moments, repeated, ten_units

from anyprop import Batch, Learner, nets
from anyprop.rules.perturbation import ActorCritic, Reinforce


@eqx.filter_jit
def with_fitted_critics(rule, key, steps=1000):
    """A learner whose critics have learned from samples of one example; its model has not moved."""
    learner, batch, adam = rule.init(ten_units(key), key=key), repeated(example(key), 32), optax.adam(3e-3)

    def learn(carry, key):
        learner, state = carry
        credit = rule.credit(learner, batch, key=key)
        updates, state = adam.update(credit.grads[1], state)
        learner = Learner(learner.model, eqx.apply_updates(learner.feedback, updates), credit.memory)
        return (learner, state), None

    start = (learner, adam.init(learner.feedback))
    (learner, _), _ = jax.lax.scan(learn, start, jax.random.split(key, steps))
    return learner


@pytest.mark.usefixtures("x64")
def test_advantage_is_unbiased_and_has_less_variance_than_reinforce(key):
    rule, plain, batch = (
        ActorCritic(loss="squared-error"),
        Reinforce("none", loss="squared-error"),
        example(key),
    )
    learner = with_fitted_critics(rule, key)
    exact = exact_gradient_of_expected_cost(learner.model, batch)
    mean, variance = moments(rule, learner, batch)
    np.testing.assert_allclose(mean, exact, rtol=1e-9, atol=1e-13)
    _, variance_of_reinforce = moments(plain, plain.init(learner.model, key=key), batch)
    assert variance.sum() < 0.5 * variance_of_reinforce.sum()

    fresh = Learner(learner.model, rule.init(learner.model, key=key).feedback, learner.memory)
    assert variance.sum() < moments(rule, fresh, batch)[1].sum()


@pytest.mark.usefixtures("x64")
def test_the_critics_gradient_is_biased_but_has_little_variance(key):
    rule, advantage = ActorCritic("gradient", loss="squared-error"), ActorCritic(loss="squared-error")
    batch = example(key)
    learner = with_fitted_critics(rule, key)
    hidden = slice(0, 3 * 6 + 6 + 6 * 4 + 4)
    exact = exact_gradient_of_expected_cost(learner.model, batch)[hidden]
    mean, variance = (m[hidden] for m in moments(rule, learner, batch))
    _, variance_of_advantage = moments(advantage, with_fitted_critics(advantage, key), batch)
    bias = jnp.linalg.norm(mean - exact) / jnp.linalg.norm(exact)
    assert 0.001 < bias < 0.5
    assert variance.sum() < 0.5 * variance_of_advantage[hidden].sum()
    assert mean @ exact > 0.9 * jnp.linalg.norm(mean) * jnp.linalg.norm(exact)
    share = variance.sum() / variance_of_advantage[hidden].sum()
    page = (Path(__file__).parents[3] / "docs" / "families" / "perturbation.md").read_text()
    assert f"{100 * share:.2g} % of the variance, and a bias of {100 * bias:.2g} %" in page


@pytest.mark.usefixtures("x64")
def test_gradient_mode_is_backprop_through_the_critic(key):
    rule = ActorCritic("gradient", units="gaussian", loss="squared-error")
    model = nets.mlp(3, 4, 2, activation="tanh", key=key)
    learner = rule.init(model, key=key)
    critic = learner.feedback[0]
    batch = Batch(jax.random.normal(key, (5, 3)), jnp.zeros((5, 2)))
    noise = [jax.random.normal(key, (5, 4))]
    credit = eqx.filter_jit(rule.estimate)(learner, batch, noise)

    def through_critic(stage):
        a = stage.drive(batch.x)
        h = jnp.tanh(a) + rule.sigma * noise[0]
        return jnp.mean(critic(jnp.concatenate([h, batch.y], axis=1)))

    expected = eqx.filter_grad(through_critic)(model.stages[0])
    np.testing.assert_allclose(credit.grads[0].stages[0].weight, expected.weight, rtol=1e-10)
    np.testing.assert_allclose(credit.grads[0].stages[0].bias, expected.bias, rtol=1e-10)


@pytest.mark.usefixtures("x64")
def test_the_critics_descend_their_own_squared_error(key):
    rule = ActorCritic(critic_width=3, loss="squared-error")
    learner = rule.init(ten_units(key), key=key)
    batch = repeated(example(key), 4)
    noise = [jax.random.uniform(key, (4, 6)), jax.random.uniform(jax.random.key(1), (4, 4))]
    credit = eqx.filter_jit(rule.estimate)(learner, batch, noise)
    h = (noise[0] < jax.nn.sigmoid(learner.model.stages[0].drive(batch.x))).astype(float)
    h_2 = (noise[1] < jax.nn.sigmoid(learner.model.stages[1].drive(h))).astype(float)
    costs = 0.5 * jnp.sum((learner.model.stages[2](h_2) - batch.y) ** 2, axis=1)

    def squared_error(critics):
        Q_1 = critics[0](jnp.concatenate([batch.x, batch.y], axis=1))[:, 0]
        Q_2 = critics[1](jnp.concatenate([h, batch.y], axis=1))[:, 0]
        return jnp.mean((Q_1 - costs) ** 2 + (Q_2 - costs) ** 2) / 2

    expected = eqx.filter_grad(squared_error)(learner.feedback)
    jax.tree.map(lambda g, e: np.testing.assert_allclose(g, e, rtol=1e-9, atol=1e-13), credit.grads[1], expected)


def test_convolutional_chains_have_critics_of_their_size(key):
    conv = nets.Conv(1, 2, 3, activation="sigmoid", key=key)
    rest = [nets.Pool("mean", 2), nets.Flatten(), nets.Dense(8, 2, key=key)]
    model = nets.Chain([conv, *rest], input_shape=(4, 4, 1))
    batch = Batch(jax.random.normal(key, (6, 4, 4, 1)), jnp.arange(6) % 2)
    assert ActorCritic().init(model, key=key).feedback[0].input_shape == (16 + 2,)
    rule = ActorCritic("gradient")
    learner = rule.init(model, key=key)
    assert learner.feedback[0].input_shape == (32 + 2,)
    credit = eqx.filter_jit(rule.credit)(learner, batch, key=key)
    assert jnp.any(credit.grads[0].stages[0].weight != 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "value"}, "mode='value' is unknown"),
        ({"decay": 1.0}, "decay must be at least 0 and below 1"),
        ({"critic_width": 0}, "critic_width must be an integer of at least 1"),
        ({"units": "poisson"}, "units='poisson' is unknown"),
    ],
)
def test_bad_hyperparameters_are_refused(arguments, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users run without the type checker
    with pytest.raises(ValueError, match=message):
        ActorCritic(**arguments)


def test_chains_without_logistic_units_are_refused(key):
    with pytest.raises(TypeError, match="ActorCritic reads hidden layers as Bernoulli-logistic units"):
        ActorCritic().init(nets.mlp(3, 4, 2, key=key), key=key)
