"""Straight-through estimator: the surrogate's backprop, and learning where backprop has no gradient."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import pytest

from anyprop import Backprop, Batch, nets
from anyprop.rules.perturbation import StraightThrough
from anyprop.rules.targets import DiscreteTargetPropagation

SLOPES = {
    "identity": lambda a: np.ones_like(a),
    "derivative": lambda a: np.exp(-a) / (1 + np.exp(-a)) ** 2,
    "window": lambda a: (np.abs(a) <= 1).astype(a.dtype),
}


@eqx.filter_jit
def credit(rule, learner, batch, key):
    return rule.credit(learner, batch, key=key)


def by_hand(model, x, y, slope, fire):
    """Gradients of 1/2 |h_3 - y|^2, batch mean, for two hidden layers of hard units, in NumPy."""
    W = [np.asarray(stage.weight) for stage in model.stages]
    b = [np.asarray(stage.bias) for stage in model.stages]
    a_1 = x @ W[0] + b[0]
    h_1 = fire(a_1)
    a_2 = h_1 @ W[1] + b[1]
    h_2 = fire(a_2)
    delta_3 = (h_2 @ W[2] + b[2] - y) / len(x)
    delta_2 = slope(a_2) * (delta_3 @ W[2].T)
    delta_1 = slope(a_1) * (delta_2 @ W[1].T)
    pairs = [(x, delta_1), (h_1, delta_2), (h_2, delta_3)]
    return [(h.T @ delta, delta.sum(0)) for h, delta in pairs]


@pytest.mark.parametrize("estimator", list(SLOPES))
@pytest.mark.parametrize("activation", ["sign", "step"])
@pytest.mark.usefixtures("x64")
def test_equals_backprop_with_the_pretended_slope(estimator, activation, key):
    model = nets.mlp(4, 6, 5, 2, activation=activation, key=key)
    x, y = np.random.default_rng(0).normal(size=(2, 7, 4))
    y = y[:, :2]
    fire = np.sign if activation == "sign" else lambda a: (a > 0).astype(a.dtype)
    rule = StraightThrough(estimator, loss="squared-error")
    learner = rule.init(model, key=key)
    got = credit(rule, learner, Batch(jnp.asarray(x), jnp.asarray(y)), key)
    for stage, (weight, bias) in zip(got.grads[0].stages, by_hand(model, x, y, SLOPES[estimator], fire), strict=True):
        np.testing.assert_allclose(stage.weight, weight, rtol=1e-10, atol=1e-14)
        np.testing.assert_allclose(stage.bias, bias, rtol=1e-10, atol=1e-14)
    assert jnp.array_equal(got.output, model(jnp.asarray(x)))
    assert jax.tree.structure(got.grads) == jax.tree.structure(learner.params)


@pytest.mark.parametrize("estimator", list(SLOPES))
def test_a_sign_that_is_a_stage_of_its_own_is_passed_like_that_of_a_layer(estimator, key):
    inside = nets.mlp(4, 6, 5, 2, activation="sign", key=key)
    apart = nets.mlp(4, 6, "sign", 5, "sign", 2, activation="identity", key=key)
    batch = Batch(jax.random.normal(key, (7, 4)), jnp.arange(7) % 2)
    rule = StraightThrough(estimator)
    expected, got = (credit(rule, rule.init(model, key=key), batch, key) for model in (inside, apart))
    assert jax.tree.structure(got.grads[0]) == jax.tree.structure(apart)
    for a, b in zip(*(jax.tree.leaves((c.loss, c.output, c.grads)) for c in (got, expected)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_sign_behind_a_residual_block_is_passed_too(key):
    body = [
        nets.Dense(5, 6, activation="sign", key=key),
        nets.Dense(6, 5, activation="tanh", key=key),
        nets.Activate("step"),
    ]
    block = nets.Residual(body, activation="sign")
    model = nets.Chain([nets.Dense(4, 5, key=key), block, nets.Dense(5, 3, key=key)])
    batch = Batch(jax.random.normal(key, (7, 4)), jnp.arange(7) % 3)
    got = credit(StraightThrough(), StraightThrough().init(model, key=key), batch, key)
    np.testing.assert_array_equal(got.output, model(batch.x))
    assert all(jnp.any(leaf) for leaf in jax.tree.leaves(got.grads))


def test_it_trains_a_net_of_discrete_target_propagation(key):
    model = nets.mlp(4, 6, "sign", 5, 2, key=key)  # with tanh behind the sign
    DiscreteTargetPropagation().init(model, key=key)
    rule = StraightThrough()
    batch = Batch(jax.random.normal(key, (7, 4)), jnp.arange(7) % 2)
    assert jnp.all(credit(rule, rule.init(model, key=key), batch, key).grads[0].stages[0].weight != 0)


@pytest.mark.parametrize("estimator", list(SLOPES))
@pytest.mark.usefixtures("x64")
def test_sampled_units_are_hard_and_pass_the_pretended_slope(estimator, key, monkeypatch):
    model = nets.mlp(4, 6, 5, 2, activation="sigmoid", key=key)
    x, y = np.random.default_rng(0).normal(size=(2, 7, 4))
    y = y[:, :2]
    rule = StraightThrough(estimator, stochastic=True, loss="squared-error")
    batch = Batch(jnp.asarray(x), jnp.asarray(y))
    wired = rule.straighten(model, batch.x, key)
    draws = iter([np.asarray(site.wiring.noise) for site in nets.sites(wired)[:-1]])

    def fire(a):
        return (next(draws) < 1 / (1 + np.exp(-a))).astype(a.dtype)

    got = credit(rule, rule.init(model, key=key), batch, key)
    for stage, (weight, bias) in zip(got.grads[0].stages, by_hand(model, x, y, SLOPES[estimator], fire), strict=True):
        np.testing.assert_allclose(stage.weight, weight, rtol=1e-10, atol=1e-14)
        np.testing.assert_allclose(stage.bias, bias, rtol=1e-10, atol=1e-14)


def test_samples_are_exactly_binary_and_fire_with_their_probability(key):
    model = nets.mlp(3, 4, 4, activation="sigmoid", key=key)
    x = jnp.tile(jnp.array([[1.0, -2.0, 0.5]]), (20000, 1))
    _, traces = StraightThrough(stochastic=True).straighten(model, x, key).record(x)
    assert set(np.unique(traces[0].output)) == {0.0, 1.0}
    p = jax.nn.sigmoid(model.stages[0].drive(x[:1]))[0]
    np.testing.assert_allclose(traces[0].output.mean(0), p, atol=4 * 0.5 / 20000**0.5)


def test_hard_output_layer_is_passed_straight_through_too(key):
    model = nets.mlp(3, 4, 2, activation="sign", output="sign", key=key)
    batch = Batch(jax.random.normal(key, (5, 3)), jnp.full((5, 2), 0.5))
    rule = StraightThrough(loss="squared-error")
    assert jnp.all(credit(rule, rule.init(model, key=key), batch, key).grads[0].stages[1].bias != 0)


def test_a_sign_network_learns_where_backprop_only_moves_its_output(key):
    model = nets.mlp(2, 12, 12, 2, activation="sign", key=key)
    x = jax.random.normal(key, (200, 2))
    batch = Batch(x, (x[:, 0] * x[:, 1] > 0).astype(jnp.int32))
    backprop = credit(Backprop(), Backprop().init(model, key=key), batch, key).grads[0]
    for stage in backprop.stages[:2]:
        assert jnp.all(stage.weight == 0)
        assert jnp.all(stage.bias == 0)

    rule, adam = StraightThrough("window"), optax.adam(0.02)

    @jax.jit
    def learn(learner):
        def advance(carry, key):
            learner, state = carry
            learnt = rule.credit(learner, batch, key=key)
            updates, state = adam.update(learnt.grads, state, learner.params)
            return (learner.apply(updates, learnt.memory), state), learnt.loss

        start = (learner, adam.init(learner.params))
        return jax.lax.scan(advance, start, jax.random.split(key, 200))

    (learner, _), losses = learn(rule.init(model, key=key))
    assert losses[-1] < 0.3 * losses[0]
    assert jnp.mean(jnp.argmax(learner.model(x), axis=1) == batch.y) > 0.95


def test_convolutional_chains_are_straightened(key):
    stages = [
        nets.Conv(1, 2, 3, activation="sign", key=key),
        nets.Flatten(),
        nets.Dense(32, 2, key=key),
    ]
    model = nets.Chain(stages, input_shape=(4, 4, 1))
    batch = Batch(jax.random.normal(key, (6, 4, 4, 1)), jnp.arange(6) % 2)
    rule = StraightThrough()
    assert jnp.all(credit(rule, rule.init(model, key=key), batch, key).grads[0].stages[0].weight != 0)


def test_an_unknown_estimator_is_refused(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users run without the type checker
    with pytest.raises(ValueError, match="estimator='windows' is unknown; pass one of: window"):
        StraightThrough("windows")


def test_differentiable_chains_are_refused(key):
    with pytest.raises(TypeError, match="build it with activation='sign' or 'step', pass stochastic=True"):
        StraightThrough().init(nets.mlp(3, 4, 2, activation="sigmoid", key=key), key=key)
    with pytest.raises(TypeError, match="samples sigmoid hidden layers, and this chain has none"):
        StraightThrough(stochastic=True).init(nets.mlp(3, 4, 2, activation="sign", key=key), key=key)


def test_recurrent_chains_are_refused(key):
    with pytest.raises(TypeError, match="one a time step"):
        StraightThrough().init(nets.elman(3, 4, 2, activation="sign", key=key), key=key)
