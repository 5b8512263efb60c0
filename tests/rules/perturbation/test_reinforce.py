"""REINFORCE against the enumeration of all 2^10 states of a net with ten hidden units."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from enumeration import (
    FIRST,
    FORCING,
    STATES,
    exact_gradient_of_expected_cost,
    example,
    moments,
    repeated,
    state_costs,
    state_probabilities,
    ten_units,
)
from jax.flatten_util import ravel_pytree

from anyprop import Batch, Learner, nets
from anyprop.losses import SquaredError
from anyprop.rules.perturbation import Reinforce


@eqx.filter_jit
def credit(rule, learner, batch, key):
    return rule.credit(learner, batch, key=key)


@eqx.filter_jit
def estimate(rule, learner, batch, noise):
    return rule.estimate(learner, batch, noise)


@eqx.filter_jit
def with_experience(rule, key, steps=50):
    """A learner whose baseline has seen some batches; its model has not moved."""
    learner = rule.init(ten_units(key), key=key)
    batch = repeated(example(key), 32)

    def learn(learner, key):
        learnt = rule.credit(learner, batch, key=key)
        feedback = jax.tree.map(lambda w, g: w - 0.1 * g, learner.feedback, learnt.grads[1])
        return Learner(learner.model, feedback, learnt.memory), None

    return jax.lax.scan(learn, learner, jax.random.split(key, steps))[0]


@pytest.mark.usefixtures("x64")
def test_every_baseline_leaves_the_expectation_exact_and_lowers_the_variance(key):
    batch, variances = example(key), {}
    for baseline in ("none", "mean", "input", "optimal"):
        rule = Reinforce(baseline, loss="squared-error")
        learner = with_experience(rule, key)
        exact = exact_gradient_of_expected_cost(learner.model, batch)
        mean, variance = moments(rule, learner, batch)
        np.testing.assert_allclose(mean, exact, rtol=1e-10, atol=1e-14)
        variances[baseline] = variance.sum()
    assert variances["mean"] < 0.9 * variances["none"]
    assert variances["input"] < 0.9 * variances["none"]
    assert variances["optimal"] < 0.9 * variances["none"]


@pytest.mark.usefixtures("x64")
def test_optimal_baseline_minimises_the_variance_of_each_units_error(key):
    rule = Reinforce("optimal", decay=0.0, loss="squared-error")
    model, batch = ten_units(key), example(key)
    many = repeated(batch, len(STATES))
    # A batch that has every state once: the running averages are the plain ones over the states.
    memory = estimate(rule, rule.init(model, key=key), many, [jnp.asarray(u) for u in FORCING]).memory
    costs = state_costs(model, batch.y)
    e = STATES[:, FIRST:] - jax.nn.sigmoid(model.stages[1].drive(jnp.asarray(STATES[:, :FIRST])))
    np.testing.assert_allclose(memory[1].value, (e**2).T @ costs / (e**2).sum(0), rtol=1e-12)
    unit_variance = jax.vmap(lambda b: jnp.mean(((costs[:, None] - b) * e) ** 2, axis=0))
    best = unit_variance(memory[1].value[None])[0]
    assert jnp.all(best < unit_variance(jnp.array([[costs.mean()], [0.0]])))


@pytest.mark.usefixtures("x64")
def test_each_example_is_taught_by_its_own_cost(key):
    rule = Reinforce("none", loss="squared-error")
    learner = rule.init(ten_units(key), key=key)
    batch = Batch(jax.random.normal(key, (5, 3)), jax.random.normal(key, (5, 2)))
    noise = [jax.random.uniform(key, (5, 6)), jax.random.uniform(jax.random.key(1), (5, 4))]
    together = estimate(rule, learner, batch, noise).grads
    rows = jax.tree.map(lambda leaf: leaf[:, None], (batch, noise))
    alone = eqx.filter_jit(jax.vmap(lambda row: rule.estimate(learner, *row).grads))(rows)
    mean = jax.tree.map(lambda g: jnp.mean(g, axis=0), alone)
    np.testing.assert_allclose(ravel_pytree(together)[0], ravel_pytree(mean)[0], rtol=1e-12, atol=1e-15)


@pytest.mark.usefixtures("x64")
def test_variance_of_a_batch_is_that_of_an_example_over_its_size(key):
    rule, size, draws = Reinforce("none", loss="squared-error"), 8, 4000
    learner, batch = rule.init(ten_units(key), key=key), example(key)
    exact_mean, exact_variance = moments(rule, learner, batch)
    exact_variance, many = exact_variance.sum(), repeated(batch, size)

    def update(key):
        return ravel_pytree(rule.credit(learner, many, key=key).grads[0])[0]

    updates = jax.jit(jax.vmap(update))(jax.random.split(key, draws))
    squares = jnp.sum((updates - exact_mean) ** 2, axis=1)
    standard_error = squares.std() / draws**0.5
    assert abs(squares.mean() - exact_variance / size) < 4 * standard_error
    assert standard_error < 0.05 * exact_variance / size


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("baseline", ["mean", "input", "optimal"])
def test_gaussian_units_estimate_the_gradient_of_a_quadratic(baseline, key):
    # With linear units and a squared error, E[C] = C(mean) + sum_j sigma_j^2 ||w_j||^2 / 2: known in closed form.
    draws, size = 200, 256
    rule = Reinforce(baseline, units="gaussian", sigma=0.5, learn_sigma=True, loss="squared-error")
    model = nets.mlp(2, 3, 2, activation="identity", key=key)
    batch = Batch(jnp.tile(jnp.array([[1.0, -0.5]]), (size, 1)), jnp.tile(jnp.array([[0.3, 0.8]]), (size, 1)))

    def closed_form(of):
        model, log_sigma = of
        noise = 0.5 * jnp.exp(2 * log_sigma) @ jnp.sum(model.stages[1].weight ** 2, axis=1)
        return jnp.mean(SquaredError()(model(batch.x), batch.y)) + noise

    learner = rule.init(model, key=key)
    np.testing.assert_allclose(jnp.exp(learner.feedback.log_sigma[0]), [0.5] * 3, rtol=1e-12)
    uneven = jnp.log(jnp.array([0.3, 0.5, 0.8]))
    learner = eqx.tree_at(lambda one: one.feedback.log_sigma[0], learner, uneven)
    learner = Learner(model, learner.feedback, credit(rule, learner, batch, key).memory)

    def teach(key):
        update, extras = rule.credit(learner, batch, key=key).grads
        return ravel_pytree((update, extras.log_sigma[0]))[0]

    estimates = jax.jit(jax.vmap(teach))(jax.random.split(key, draws))
    exact = ravel_pytree(eqx.filter_grad(closed_form)((model, uneven)))[0]
    standard_errors = estimates.std(axis=0) / draws**0.5
    assert jnp.all(jnp.abs(estimates.mean(axis=0) - exact) < 4 * standard_errors)
    assert jnp.max(standard_errors) < 0.1 * jnp.linalg.norm(exact)


def test_units_learn_to_be_less_noisy_where_noise_only_costs(key):
    # Alone with its targets a linear net has nothing to explore: the best sigma is zero.
    rule = Reinforce(units="gaussian", learn_sigma=True, loss="squared-error")
    learner = rule.init(nets.mlp(2, 3, 2, activation="identity", key=key), key=key)
    batch = Batch(jax.random.normal(key, (64, 2)), jax.random.normal(key, (64, 2)))

    def step(learner, key):
        learnt = rule.credit(learner, batch, key=key)
        return learner.apply(jax.tree.map(lambda g: -0.05 * g, learnt.grads), learnt.memory), None

    after = jax.jit(lambda one: jax.lax.scan(step, one, jax.random.split(key, 300))[0])(learner)
    assert jnp.all(after.feedback.log_sigma[0] < learner.feedback.log_sigma[0])


def test_gaussian_score_is_the_derivative_of_the_log_density(key):
    sigma = 0.3
    rule = Reinforce("none", units="gaussian", sigma=sigma, loss="squared-error")
    model = nets.mlp(2, 4, 1, activation="tanh", key=key)
    batch = Batch(jnp.ones((1, 2)), jnp.ones((1, 1)))
    noise = jax.random.normal(key, (1, 4))
    h = jnp.tanh(model.stages[0].drive(batch.x)) + sigma * noise

    def log_density(stage):
        return -jnp.sum((h - jnp.tanh(stage.drive(batch.x))) ** 2) / (2 * sigma**2)

    taught = estimate(rule, rule.init(model, key=key), batch, [noise])
    score = eqx.filter_grad(log_density)(model.stages[0])
    np.testing.assert_allclose(taught.grads[0].stages[0].weight, taught.loss * score.weight, rtol=1e-5)


def test_the_running_mean_forgets_by_its_decay(key):
    rule = Reinforce(decay=0.75, loss="squared-error")
    learner, costs = rule.init(ten_units(key), key=key), []
    for k in jax.random.split(key, 3):
        learnt = credit(rule, learner, example(k), k)
        learner = Learner(learner.model, learner.feedback, learnt.memory)
        costs.append(float(learnt.loss))
    expected = np.average(costs, weights=[0.75**2, 0.75, 1])
    assert learner.memory[0].value == pytest.approx(expected, rel=1e-5)


def test_units_fire_with_their_probability(key):
    rule = Reinforce(loss="squared-error")
    model = ten_units(key)
    batch = repeated(example(key), 20000)
    # An output that copies the first two units of the last hidden layer shows when they fire.
    copy = (jnp.eye(4)[:, :2], jnp.zeros(2))
    reader = eqx.tree_at(lambda m: (m.stages[2].weight, m.stages[2].bias), model, copy)
    fired = credit(rule, rule.init(reader, key=key), batch, key).output
    assert set(np.unique(fired)) == {0.0, 1.0}
    p = state_probabilities(model, example(key).x) @ STATES[:, FIRST : FIRST + 2]
    np.testing.assert_allclose(fired.mean(0), p, atol=4 * 0.5 / 20000**0.5)


def test_convolutional_chains_are_taught(key):
    stages = [
        nets.Conv(1, 2, 3, activation="sigmoid", key=key),
        nets.Pool("mean", 2),
        nets.Flatten(),
        nets.Dense(8, 2, key=key),
    ]
    model = nets.Chain(stages, input_shape=(4, 4, 1))
    batch = Batch(jax.random.normal(key, (6, 4, 4, 1)), jnp.arange(6) % 2)
    rule = Reinforce("optimal")
    learnt = credit(rule, rule.init(model, key=key), batch, key)
    assert jnp.any(learnt.grads[0].stages[0].weight != 0)
    assert learnt.memory[0].cost.shape == (4, 4, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"baseline": "best"}, "baseline='best' is unknown"),
        ({"units": "poisson"}, "units='poisson' is unknown"),
        ({"decay": 1.0}, "decay must be at least 0 and below 1"),
        ({"sigma": 0.0}, "sigma must be a finite number above zero"),
        ({"learn_sigma": True}, "learn_sigma: bernoulli units have no sigma; pass units='gaussian'"),
    ],
)
def test_bad_hyperparameters_are_refused(arguments, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users run without the type checker
    with pytest.raises(ValueError, match=message):
        Reinforce(**arguments)


def test_chains_without_logistic_units_are_refused(key):
    below = nets.mlp(3, 4, activation="sigmoid", output="sigmoid", key=key)
    model = nets.Chain([*below.stages, *nets.mlp(4, 5, 2, key=key).stages])
    with pytest.raises(TypeError, match="hidden layer 2 of 2 has no sigmoid; build the chain with activation="):
        Reinforce().init(model, key=key)
    Reinforce(units="gaussian").init(model, key=key)


def test_recurrent_chains_are_refused(key):
    with pytest.raises(TypeError, match="one a time step"):
        Reinforce().init(nets.elman(3, 4, 2, key=key), key=key)
