import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import anyprop as ap
from anyprop.contract import Learner
from anyprop.nets import Chain, Conv, Dense, Flatten, Norm, Residual, Series, layers, mlp
from anyprop.rules.targets._layerwise import activities
from anyprop.rules.targets._local_difference_reconstruction import LocalDifferenceReconstruction


def batch_for(key, model, examples=6):
    x = jax.random.normal(key, (examples, *model.input_shape))
    return ap.Batch(x, jnp.arange(examples) % model.output_shape[-1])


def with_weights(feedback, weights):
    """The feedback with the weights of its linear maps replaced."""
    return [eqx.tree_at(lambda g: g.stages[2].weight, g, w) for g, w in zip(feedback, weights, strict=True)]


def transposed(model, feedback):
    """The feedback with each layer's own weight, transposed."""
    return with_weights(feedback, [f.stages[0].weight.T for f in layers(model)[1:-1]])


def expectation(weight, batch):
    """A layer of that weight and an input of that many examples, for `inverse_cost`."""
    key = jax.random.key(5)
    model = mlp(3, *weight.shape, 2, activation="identity", key=key)
    model = eqx.tree_at(lambda m: m.stages[1].weight, model, weight)
    return model, activities(model, jax.random.normal(key, (batch, 3)))


@pytest.mark.parametrize("activation", ["identity", jax.nn.leaky_relu])
def test_with_transposed_weights_the_updates_are_backprops(x64, activation):
    """A leaky rectifier has the same slope at a and at f(a), so g's Jacobian is exactly the transposed one.

    2 eta = 1 makes up for the factor of the square. A large step would cross kinks, so it is small there.
    """
    key = jax.random.key(0)
    model = mlp(4, 6, 7, 5, 3, activation=activation, key=key)
    batch = batch_for(key, model)
    step = 0.5 if activation == "identity" else 1e-5
    rule, exact = LocalDifferenceReconstruction(target_step=step), ap.Backprop()
    learner = rule.init(model, key=key)
    learner = ap.Learner(model, transposed(model, learner.feedback))
    update = eqx.filter_jit(rule.credit)(learner, batch, key=key).grads[0].stages
    wanted = eqx.filter_jit(exact.credit)(exact.init(model, key=key), batch, key=key).grads[0].stages
    for got, want in zip(jax.tree.leaves(update[:-1]), jax.tree.leaves(wanted[:-1]), strict=True):
        np.testing.assert_allclose(got / (2 * step), want, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(update[-1].weight, wanted[-1].weight, rtol=1e-12)


def test_linear_feedback_with_the_transposed_jacobian_carries_backprops_gradient_through_curved_layers(x64):
    """One example, for which g(h) = W (slope * h) is the transposed Jacobian of f(h) = tanh(h W + b)."""
    key = jax.random.key(1)
    model = mlp(4, 6, 7, 5, 3, key=key)
    batch = batch_for(key, model, examples=1)
    h = activities(model, batch.x)

    def exact(f, below, above):
        dense = Dense(above.shape[-1], below.shape[-1], key=key)
        return Series((eqx.tree_at(lambda d: d.weight, dense, (f.stages[0].weight * (1 - above[0] ** 2)).T),))

    feedback = [exact(f, *pair) for f, *pair in zip(layers(model)[1:-1], h[1:-2], h[2:-1], strict=True)]
    rule = LocalDifferenceReconstruction(target_step=0.3)
    targets = rule.propose(Learner(model, feedback), batch)[3]

    def cost(activity, layer):
        return rule.loss(Series(layers(model)[layer:])(activity), batch.y).mean()

    for layer, target in enumerate(targets, start=1):
        np.testing.assert_allclose(target - h[layer], -0.3 * jax.grad(cost)(h[layer], layer), rtol=1e-10)


def test_the_cost_is_the_distance_to_the_transposed_jacobian(x64):
    """||G - F^T||^2 - ||F||^2 in the mean over the noise, and its gradient 2 (G - F^T)."""
    key_w, key_b, key = jax.random.split(jax.random.key(2), 3)
    weight, back = jax.random.normal(key_w, (4, 3)), jax.random.normal(key_b, (3, 4))
    model, h = expectation(weight, 50)
    rule = LocalDifferenceReconstruction(noise=0.7, noise_draws=50)
    feedback = with_weights(rule.init(model, key=key).feedback, [back])

    def sample(key):
        cost = eqx.filter_value_and_grad(lambda g: rule.inverse_cost(g, model, h, key=key))
        value, gradient = cost(feedback)
        return value, gradient[0].stages[2].weight

    values, gradients = jax.jit(jax.vmap(sample))(jax.random.split(key, 200))
    expected = jnp.sum((back - weight.T) ** 2) - jnp.sum(weight**2)
    assert abs(values.mean() - expected) < 4 * values.std() / np.sqrt(200) < 0.02 * abs(expected)
    error = jnp.abs(gradients.mean(0) - 2 * (back - weight.T))
    assert jnp.all(error < 4 * gradients.std(0) / np.sqrt(200))


def test_feedback_trained_by_the_rule_becomes_the_transpose(x64):
    key = jax.random.key(3)
    model, h = expectation(jax.random.normal(key, (5, 4)), 40)
    rule = LocalDifferenceReconstruction(noise=0.1, noise_draws=400)
    feedback = rule.init(model, key=key).feedback
    arrays, static = eqx.partition(feedback, eqx.is_array)
    rate = optax.exponential_decay(0.1, 300, 0.001)

    def step(arrays, now):
        t, key = now
        gradient = eqx.filter_grad(lambda g: rule.inverse_cost(g, model, h, key=key))(eqx.combine(arrays, static))
        return jax.tree.map(lambda w, d: w - rate(t) * d, arrays, eqx.filter(gradient, eqx.is_array)), None

    arrays, _ = jax.lax.scan(step, arrays, (jnp.arange(300), jax.random.split(key, 300)))
    found, wanted = arrays[0].stages[2].weight, model.stages[1].weight.T
    assert jnp.linalg.norm(found - wanted) < 0.01 * jnp.linalg.norm(wanted)


def test_more_draws_average_the_noise_out(x64):
    """The variance of the feedback's gradient falls as one over the number of draws."""
    key = jax.random.key(4)
    model, h = expectation(jax.random.normal(key, (5, 4)), 8)

    def variance(draws):
        rule = LocalDifferenceReconstruction(noise_draws=draws)
        feedback = rule.init(model, key=key).feedback

        def sample(key):
            return eqx.filter_grad(lambda g: rule.inverse_cost(g, model, h, key=key))(feedback)[0].stages[2].weight

        return jnp.sum(jax.jit(jax.vmap(sample))(jax.random.split(key, 500)).var(0))

    assert variance(16) / variance(1) == pytest.approx(1 / 16, rel=0.2)


@pytest.mark.parametrize(
    ("argument", "value"), [("noise", 0.0), ("noise_draws", 0), ("target_step", 0.0), ("init_inverse", "xavier")]
)
def test_bad_arguments_are_named(argument, value):
    with pytest.raises(ValueError, match=argument):
        LocalDifferenceReconstruction(**{argument: value})


def residual(*, key):
    """A convolution, a strided residual block with a norm, and a dense layer."""
    keys = jax.random.split(key, 4)
    body = [Conv(4, 6, 3, stride=2, activation="relu", key=keys[0]), Conv(6, 6, 3, key=keys[1]), Norm(6)]
    block = Residual(body, shortcut=[Conv(4, 6, 1, stride=2, key=keys[2])], activation="relu")
    first = Conv(1, 4, 3, activation="relu", key=keys[3])
    return Chain([first, block, Flatten(), Dense(96, 5, key=keys[3])], input_shape=(8, 8, 1))


@pytest.mark.parametrize("build", [ap.nets.lenet5, residual])
def test_convolutional_nets_learn(build, key):
    model = build(key=key)
    batch = batch_for(key, model, examples=2)
    rule = LocalDifferenceReconstruction(noise_draws=2)
    learner = rule.init(model, key=key)
    credit = eqx.filter_jit(rule.credit)(learner, batch, key=key)
    assert jax.tree.structure(credit.grads) == jax.tree.structure(learner.params)
    assert all(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(credit.grads))
