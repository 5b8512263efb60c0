import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import pytest

import anyprop as ap
from anyprop.losses import BinaryCrossEntropy, CrossEntropy, SquaredError
from anyprop.nets import Activate, Chain, Conv, Dense, Flatten, Pool, Series, layers, mlp
from anyprop.rules.targets._iterative_target_propagation import IterativeTargetPropagation
from anyprop.rules.targets._layerwise import activities
from anyprop.rules.targets._two_way import corrupt


def batch_for(key, model, examples=6):
    x = jax.random.normal(key, (examples, *model.input_shape))
    return ap.Batch(x, jnp.arange(examples) % model.output_shape[-1])


def targets_for(key, model, examples=6):
    key_x, key_y = jax.random.split(key)
    x = jax.random.normal(key_x, (examples, *model.input_shape))
    return ap.Batch(x, jax.random.normal(key_y, (examples, *model.output_shape)))


def transposed(layer):
    """The linear way back through the transpose of a linear layer's weight."""
    weight = layer.stages[-1].weight.T
    dense = Dense(*weight.shape, bias=False, key=jax.random.key(0))
    return Series((eqx.tree_at(lambda d: d.weight, dense, weight),))


def test_one_linear_hidden_layer_settles_on_the_map_estimate(x64):
    """argmax_h -|x - h V|^2 / 2 - |y - h U|^2 / 2, a least-squares problem in h."""
    key = jax.random.key(0)
    model = mlp(6, 3, 2, activation="identity", bias=False, key=key)
    batch = targets_for(key, model)
    inverses = [transposed(layer) for layer in layers(model)]
    rule = IterativeTargetPropagation(iterations=3000, loss="squared-error")
    (x, h, y), trace = rule.infer(model, inverses, [batch.x, model.stages[0](batch.x), batch.y])
    explaining = jnp.concatenate([model.stages[0].weight.T, model.stages[1].weight], axis=1)
    expected_h = jnp.linalg.lstsq(explaining.T, jnp.concatenate([x, y], axis=1).T)[0].T
    assert jnp.allclose(h, expected_h, rtol=1e-9)
    left = jnp.concatenate([x, y], axis=1) - expected_h @ explaining
    assert jnp.isclose(trace[-1], -0.5 * jnp.sum(left**2) / len(x), rtol=1e-12)
    assert jnp.all(jnp.diff(trace) > -1e-12)


def leaky(a):
    """A nonlinearity that can be inverted everywhere."""
    return a + 0.5 * jnp.tanh(a)


def inverted(b):
    """The inverse of `leaky`, by Newton's method."""
    a = b / 1.5
    for _ in range(30):
        a -= (leaky(a) - b) / (1.5 - 0.5 * jnp.tanh(a) ** 2)
    return a


def undo(layer):
    """g(h) = (f^{-1}(h) - b) W^{-1}."""
    dense = layer.stages[-1]
    back = jnp.linalg.inv(dense.weight)
    linear = eqx.tree_at(lambda d: (d.weight, d.bias), Dense(5, 5, key=jax.random.key(0)), (back, -dense.bias @ back))
    return Series((Activate(inverted), linear))


def test_with_exact_inverses_one_whole_step_gives_difference_targets(x64):
    """t_{L-1} = h_{L-1} + g_L(y) - g_L(h_L), t_{l-1} = h_{l-1} + g_l(t_l) - g_l(h_l)."""
    keys = jax.random.split(jax.random.key(1), 5)
    hidden = [Dense(5, 5, activation=leaky, init="orthogonal", key=k) for k in keys[:3]]
    model = Chain([*hidden, Dense(5, 3, key=keys[3])])
    batch = targets_for(keys[4], model)
    rule = IterativeTargetPropagation(loss="squared-error")
    top = rule.init(model, key=keys[4]).feedback[-1]
    inverses = [*(undo(layer) for layer in layers(model)[:-1]), top]
    h = activities(model, batch.x)
    target, moved = batch.y, [*h[:-1], batch.y]
    for i in (3, 2, 1):
        target = h[i] + inverses[i](target) - inverses[i](h[i + 1])
        moved[i] += rule.displacement(model, inverses, moved, i)
        assert jnp.allclose(moved[i], target, rtol=1e-9, atol=1e-12)


def trained(rule, model, batch, key, steps=300):
    optimizer = optax.adam(0.01)
    learner = rule.init(model, key=key)

    @jax.jit
    def train(params, key):
        def step(carry, key):
            params, state = carry
            held = eqx.combine(params, rest)
            credit = rule.credit(held, batch, key=key)
            updates, state = optimizer.update(credit.grads, state, held.params)
            return (eqx.filter(held.apply(updates, None), eqx.is_array), state), credit.loss

        return jax.lax.scan(step, (params, optimizer.init(learner.params)), jax.random.split(key, steps))

    params, rest = eqx.partition(learner, eqx.is_array)
    (params, _), losses = train(params, key)
    return eqx.combine(params, rest), losses


def test_settling_raises_the_joint_likelihood_in_every_iteration(key):
    """Of examples that were trained on and of others, before training and after it."""
    model = mlp(8, 7, 6, 3, key=key)
    batch, held_out = batch_for(key, model, examples=12), batch_for(jax.random.key(7), model, examples=12)
    rule = IterativeTargetPropagation()
    learner, losses = trained(rule, model, batch, key)
    assert losses[-1] < 0.5 * losses[0]
    credit = eqx.filter_jit(rule.credit)
    for stack in (rule.init(model, key=key), learner):
        for examples in (held_out, batch):
            metrics = credit(stack, examples, key=key).metrics
            assert metrics["joint"].shape == (rule.iterations + 1,)
            assert jnp.all(jnp.diff(metrics["joint"]) > 0)
    assert metrics["joint_first"] == metrics["joint"][0]
    assert metrics["joint_last"] == metrics["joint"][-1]


def test_the_updates_are_the_delta_rule(x64):
    """df_l = z_{l-1}^T [(f_l(z_{l-1}) - h_l) f'] / B of the settled h and z = h + noise, and likewise for the g_l."""
    key = jax.random.key(2)
    model = mlp(4, 6, 5, 3, key=key)
    batch = batch_for(key, model)
    rule = IterativeTargetPropagation(noise=0.3)
    learner = rule.init(model, key=key)
    start = activities(model, batch.x)
    h, _ = eqx.filter_jit(rule.infer)(model, learner.feedback, [*start[:-1], jax.nn.one_hot(batch.y, 3)])
    z = corrupt(h, 0.3, key)
    up, down = eqx.filter_jit(rule.credit)(learner, batch, key=key).grads
    for i in (0, 1):
        f = model.stages[i](z[i])
        error = (f - h[i + 1]) * (1 - f**2) / len(batch.x)
        assert jnp.allclose(up.stages[i].weight, z[i].T @ error, rtol=1e-9)
        assert jnp.allclose(up.stages[i].bias, error.sum(0), rtol=1e-9)
    error = (jax.nn.softmax(model.stages[2](z[2])) - h[3]) / len(batch.x)
    assert jnp.allclose(up.stages[2].weight, z[2].T @ error, rtol=1e-9)
    for i, derivative in enumerate((lambda g: 1.0, lambda g: 1 - g**2, lambda g: 1 - g**2)):
        g = learner.feedback[i](z[i + 1])
        error = (g - h[i]) * derivative(g) / len(batch.x)
        assert jnp.allclose(down[i].stages[1].weight, z[i + 1].T @ error, rtol=1e-9)
        assert jnp.allclose(down[i].stages[1].bias, error.sum(0), rtol=1e-9)


@pytest.mark.parametrize("loss", [SquaredError(), CrossEntropy(), BinaryCrossEntropy()])
def test_the_expected_answer_is_the_output_in_the_units_of_y(loss, key):
    """The error is the expected answer less y; the difference target of the top has the descent direction."""
    output = jax.random.normal(key, (4, 3))
    y = jax.nn.one_hot(jnp.arange(4) % 3, 3)
    assert jnp.allclose(loss.expected(output) - y, jax.grad(lambda o: loss(o, y).sum())(output), atol=1e-6)


def test_a_single_layer_has_nothing_to_settle(key):
    model = mlp(4, 3, key=key)
    batch = batch_for(key, model)
    rule = IterativeTargetPropagation()
    credit = rule.credit(rule.init(model, key=key), batch, key=key)
    assert np.allclose(credit.metrics["joint"], -credit.loss)


def test_convolutional_nets_learn(key):
    stages = [Conv(1, 2, 3, activation="tanh", key=key), Pool("mean", 2), Flatten(), Dense(18, 3, key=key)]
    model = Chain(stages, input_shape=(6, 6, 1))
    batch = batch_for(key, model, examples=2)
    rule = IterativeTargetPropagation(iterations=2)
    learner = rule.init(model, key=key)
    credit = eqx.filter_jit(rule.credit)(learner, batch, key=key)
    assert jax.tree.structure(credit.grads) == jax.tree.structure(learner.params)
    assert all(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(credit.grads))


@pytest.mark.parametrize(
    ("argument", "value"),
    [("iterations", 0), ("rate", 0.0), ("noise", -0.1), ("init_inverse", "xavier"), ("loss", "hinge")],
)
def test_bad_arguments_are_named(argument, value, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users run without the type checker
    with pytest.raises(ValueError, match=argument):
        IterativeTargetPropagation(**{argument: value})


def test_what_has_no_layer_activities_is_refused(key):
    with pytest.raises(TypeError, match="Elman"):
        IterativeTargetPropagation().init(ap.nets.elman(4, 5, 3, steps=2, key=key), key=key)
    with pytest.raises(TypeError, match="chain"):
        IterativeTargetPropagation().init(eqx.nn.Linear(3, 2, key=key), key=key)
