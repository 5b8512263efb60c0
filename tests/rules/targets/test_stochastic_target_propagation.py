"""Stochastic target propagation: random bits up, targets for their probabilities down."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import anyprop as ap
from anyprop.nets import Activate, Chain, Conv, Dense, Flatten, Pool, affines, mlp
from anyprop.rules.targets import _stochastic_target_propagation as module
from anyprop.rules.targets._stochastic_target_propagation import StochasticTargetPropagation


def batch_for(key, model, examples=6):
    x = jax.random.normal(key, (examples, *model.input_shape))
    return ap.Batch(x, jnp.arange(examples) % model.output_shape[-1])


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def test_equals_the_equations_written_out(x64, monkeypatch):
    """The paper's net with every bit decided by p > 1/2 and no noise: all updates in NumPy."""
    monkeypatch.setattr(module, "bits", lambda p, key: (p > 0.5).astype(p.dtype))
    key = jax.random.key(0)
    model = mlp(4, 7, 6, 3, activation="sigmoid", key=key)
    batch = batch_for(jax.random.key(1), model)
    rule = StochasticTargetPropagation(target_step=0.7, noise=0.0, input_noise=0.0, reduction="sum")
    learner = rule.init(model, key=key)
    got = rule.credit(learner, batch, key=key)

    (W_1, b_1), (W_2, b_2), (W_3, b_3), (V, c) = (
        (np.asarray(s.weight), np.asarray(s.bias)) for s in affines((model, learner.feedback))
    )
    x, B = np.asarray(batch.x), len(batch.x)
    p_1 = sigmoid(x @ W_1 + b_1)
    s_1 = 1.0 * (p_1 > 0.5)
    p_2 = sigmoid(s_1 @ W_2 + b_2)
    s_2 = 1.0 * (p_2 > 0.5)
    odds = np.exp(s_2 @ W_3 + b_3)
    delta = odds / odds.sum(1, keepdims=True) - np.eye(3)[np.asarray(batch.y)]
    t_2 = p_2 - 0.7 * delta @ W_3.T
    back = np.tanh(p_2 @ V + c)
    t_1 = p_1 - back + np.tanh(t_2 @ V + c)
    e_1, e_2 = ((p - t) * p * (1 - p) * 2 / B for p, t in ((p_1, t_1), (p_2, t_2)))
    e_g = (back - p_1) * (1 - back**2) * 2 / B
    pairs = [(x, e_1), (s_1, e_2), (s_2, delta / B), (p_2, e_g)]
    for site, (h, e) in zip(affines(got.grads), pairs, strict=True):
        np.testing.assert_allclose(site.weight, h.T @ e, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(site.bias, e.sum(0), rtol=1e-9, atol=1e-12)


def test_certain_units_make_it_difference_target_propagation(x64):
    """Weights so large that every p is 0 or 1 to the last digit: the same targets, output and inverses' costs."""
    key = jax.random.key(2)
    model = mlp(4, 7, 6, 3, activation="sigmoid", key=key)
    large = eqx.tree_at(
        lambda m: [m.stages[0].weight, m.stages[1].weight, m.stages[1].bias],
        model,
        [1e5 * model.stages[0].weight, 1e5 * model.stages[1].weight, model.stages[1].bias - 1.0],
    )
    batch = batch_for(key, model)
    settings = {"target_step": 0.7, "noise": 0.0, "reduction": "sum"}
    rule = StochasticTargetPropagation(input_noise=0.0, **settings)
    learner = rule.init(large, key=key)
    p, s = module.passed(large, batch.x, key=key)
    assert all(bool(jnp.allclose(a, b, rtol=0, atol=1e-12)) for a, b in zip(p, s, strict=True))
    assert 0 < s[2].mean() < 1
    got = rule.credit(learner, batch, key=key)
    difference = ap.DifferenceTargetPropagation(**settings)
    want = difference.credit(ap.Learner(large, learner.feedback), batch, key=key)
    assert jnp.allclose(got.output, want.output, rtol=1e-10)
    assert jnp.any(want.grads[1][0].stages[1].weight)
    for a, b in zip(jax.tree.leaves(got.grads), jax.tree.leaves(want.grads), strict=True):
        assert jnp.allclose(a, b, rtol=1e-9, atol=1e-12)


def test_bits_are_bits_and_come_with_their_probability(key):
    model = mlp(3, 4, 4, 2, activation="sigmoid", key=key)
    x = jnp.tile(jnp.array([[1.0, -2.0, 0.5]]), (20000, 1))
    p, s = module.passed(model, x, key=key)
    assert all(set(np.unique(h)) == {0.0, 1.0} for h in s[1:-1])
    np.testing.assert_allclose(s[1].mean(0), p[1][0], atol=4 * 0.5 / 20000**0.5)
    assert len(np.unique(p[2], axis=0)) == 2**4  # p_2 follows the bits of the first layer
    assert not np.allclose(s[1][:, 0] == s[2][:, 0], s[1][:, 1] == s[2][:, 1])


def test_the_average_over_passes_is_that_over_all_bits(x64):
    """Two hidden bits: the four patterns, weighed by their probabilities, against 20,000 passes."""
    key = jax.random.key(0)
    model = mlp(3, 2, 3, activation="sigmoid", init="orthogonal", key=key)
    x = jax.random.normal(key, (5, 3))
    p = np.asarray(model.stages[0](x))
    want = np.zeros((5, 3))
    for bits in ((0, 0), (0, 1), (1, 0), (1, 1)):
        chance = np.prod(np.where(bits, p, 1 - p), axis=1, keepdims=True)
        want += chance * np.asarray(jax.nn.softmax(model.stages[1](jnp.asarray([bits], float))))
    got = StochasticTargetPropagation().sample(model, x, key=key, draws=20_000)
    np.testing.assert_allclose(got, want, atol=4 * 0.5 / 20_000**0.5)
    np.testing.assert_allclose(got.sum(1), 1, rtol=1e-9)
    with pytest.raises(ValueError, match="draws"):
        StochasticTargetPropagation().sample(model, x, key=key, draws=0)


def test_the_inverses_learn_from_noisy_bits(x64):
    """E ||g(f(s)) - z||^2 over s ~ Bernoulli(z), z = p + e, against the same mean in NumPy."""
    key = jax.random.key(0)
    model = mlp(4, 3, 3, 2, activation="sigmoid", init=lambda key, shape: 3 * jax.random.normal(key, shape), key=key)
    batch = batch_for(key, model, examples=20_000)
    rule = StochasticTargetPropagation(noise=0.4)
    inverses = jax.tree.map(lambda w: 4 * w, rule.init(model, key=key).feedback)
    p, _ = module.passed(model, batch.x, key=key)
    rng = np.random.default_rng(0)
    z = np.asarray(p[1]) + 0.4 * rng.normal(size=p[1].shape)
    s = 1.0 * (rng.uniform(size=z.shape) < z)
    want = np.sum((np.asarray(inverses[0](model.stages[1](jnp.asarray(s)))) - z) ** 2, axis=1)
    got = rule.inverse_cost(inverses, model, p, key=key)
    np.testing.assert_allclose(got, want.mean(), atol=6 * want.std() / len(want) ** 0.5)


def test_the_noise_falls_with_the_steps_and_the_input_is_noisy(x64):
    key = jax.random.key(0)
    model = mlp(4, 5, 5, 2, activation="sigmoid", key=key)
    batch = batch_for(key, model)
    rule = StochasticTargetPropagation(noise=0.8, noise_halving=10.0)
    learner = rule.init(model, key=key)
    late = eqx.tree_at(lambda learner: learner.memory, learner, jnp.asarray(10, jnp.int32))
    got = rule.credit(late, batch, key=key)
    want = StochasticTargetPropagation(noise=0.4).credit(learner, batch, key=key)
    assert jnp.isclose(got.metrics["inverse_loss"], want.metrics["inverse_loss"], rtol=1e-12)
    assert got.memory == 11
    silent = ap.Batch(jnp.zeros((20_000, 4)), jnp.zeros(20_000, int))
    one = mlp(4, 2, key=key)
    output = (
        StochasticTargetPropagation(input_noise=0.3).credit(ap.Learner(one, [], late.memory), silent, key=key).output
    )
    want = 0.3 * np.linalg.norm(np.asarray(one.stages[0].weight), axis=0)
    np.testing.assert_allclose(output.std(0), want, rtol=0.03)


def test_images_and_an_activation_of_its_own_are_read_as_probabilities(key):
    k = jax.random.split(key, 3)
    stages = [
        Conv(1, 2, 3, activation="sigmoid", key=k[0]),
        Pool("mean", 2),
        Flatten(),
        Dense(18, 5, key=k[1]),
        Activate("sigmoid"),
        Dense(5, 3, key=k[2]),
    ]
    model = Chain(stages, input_shape=(6, 6, 1))
    batch = batch_for(key, model)
    rule = StochasticTargetPropagation()
    credit = eqx.filter_jit(rule.credit)(rule.init(model, key=key), batch, key=key)
    assert all(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(credit.grads))


def test_layers_without_probabilities_are_refused(key):
    with pytest.raises(TypeError, match="hidden layer 1 of 2 does not end in a sigmoid; build the chain with activ"):
        StochasticTargetPropagation().init(mlp(4, 6, 5, 3, key=key), key=key)
    with pytest.raises(TypeError, match="Elman"):
        StochasticTargetPropagation().init(ap.nets.elman(4, 5, 3, steps=2, activation="sigmoid", key=key), key=key)


@pytest.mark.parametrize(("argument", "value"), [("noise_halving", 0.0), ("input_noise", -0.1)])
def test_bad_numbers_are_named(argument, value):
    with pytest.raises(ValueError, match=argument):
        StochasticTargetPropagation(**{argument: value})
