"""Simplified target propagation: targets from the label, no gradient at the top."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import anyprop as ap
from anyprop.contract import Learner
from anyprop.nets import Conv, Dense, Flatten, Reshape, Series, affines, mlp
from anyprop.rules.targets._simplified_target_propagation import SimplifiedTargetPropagation


def batch_for(key, model, examples=6):
    x = jax.random.normal(key, (examples, *model.input_shape))
    return ap.Batch(x, jnp.arange(examples) % model.output_shape[-1])


@pytest.mark.parametrize("loss", ["cross-entropy", "squared-error", "binary-cross-entropy"])
def test_with_the_transposed_output_layer_it_is_difference_target_propagation(x64, loss):
    """g_L(o) = o W_L^T gives g_L(label) - g_L(o) = -dC/dh_{L-1}: all targets and updates are those of DTP."""
    key = jax.random.key(0)
    model = mlp(4, 6, 5, 3, key=key)
    batch = batch_for(key, model)
    rule = SimplifiedTargetPropagation(loss=loss)
    difference = ap.DifferenceTargetPropagation(target_step=1.0, reduction="sum", loss=loss)
    between, _ = rule.init(model, key=key).feedback
    linear = Dense(3, 5, bias=False, key=key)
    transpose = Series((Flatten(), eqx.tree_at(lambda d: d.weight, linear, model.stages[-1].weight.T), Reshape((5,))))
    got = rule.credit(ap.Learner(model, [between, transpose]), batch, key=key)
    want = difference.credit(ap.Learner(model, [between]), batch, key=key)
    for a, b in zip(jax.tree.leaves(got.grads[0]), jax.tree.leaves(want.grads[0]), strict=True):
        assert jnp.allclose(a, b, rtol=1e-9, atol=1e-12)


def test_the_last_inverse_takes_the_label_back(x64):
    """t_2 = h_2 - g_3(softmax(a_3)) + g_3(label), written out; the output layer learns by its exact gradient."""
    key = jax.random.key(0)
    model = mlp(4, 6, 5, 3, key=key)
    batch = batch_for(key, model)
    rule = SimplifiedTargetPropagation()
    learner = rule.init(model, key=key)
    h, loss, output, targets = rule.propose(Learner(model, learner.feedback), batch)
    (_, g) = learner.feedback
    assert jnp.allclose(h[-1], jax.nn.softmax(output), rtol=1e-12)
    assert jnp.allclose(targets[1], h[2] - g(jax.nn.softmax(output)) + g(jnp.eye(3)[batch.y]), rtol=1e-12)
    assert jnp.isclose(loss, rule.loss(model(batch.x), batch.y).mean())
    got = rule.credit(learner, batch, key=key).grads[0].stages
    exact = ap.Backprop().credit(ap.Backprop().init(model, key=key), batch, key=key).grads[0].stages
    assert jnp.allclose(got[2].weight, exact[2].weight, rtol=1e-9)
    error = 2 * (h[2] - targets[1]) * (1 - h[2] ** 2) / len(batch.x)
    assert jnp.allclose(got[1].weight, h[1].T @ error, rtol=1e-9)


def test_part_of_the_way_to_the_label(x64):
    key = jax.random.key(0)
    model = mlp(4, 6, 3, key=key)
    batch = batch_for(key, model)
    learner = SimplifiedTargetPropagation().init(model, key=key)
    (g,) = learner.feedback
    h, _, output, (target,) = SimplifiedTargetPropagation(target_step=0.3).propose(learner, batch)
    o = jax.nn.softmax(output)
    assert jnp.allclose(target, h[1] - g(o) + g(0.7 * o + 0.3 * jnp.eye(3)[batch.y]), rtol=1e-9)
    mean = SimplifiedTargetPropagation(target_step=0.3 * len(batch.x), reduction="mean")
    assert jnp.allclose(mean.propose(Learner(model, learner.feedback), batch)[3][0], target, rtol=1e-12)


def test_auxiliary_outputs_have_their_own_value_for_a_target(x64):
    """t_2 = h_2 - g_3(o, z) + g_3(label, z), z = tanh(W_z h_2); W_z lies in the memory and stays."""
    key = jax.random.key(0)
    model = mlp(4, 6, 5, 3, key=key)
    batch = batch_for(key, model)
    rule = SimplifiedTargetPropagation(auxiliary_units=7)
    learner = rule.init(model, key=key)
    (_, g), (W,) = learner.feedback, affines(learner.memory)
    h, _, output, targets = rule.propose(Learner(model, learner.feedback, learner.memory), batch)
    z = jnp.tanh(h[2] @ W.weight + W.bias)
    o, label = (jnp.concatenate([own, z], axis=1) for own in (jax.nn.softmax(output), jnp.eye(3)[batch.y]))
    assert affines(g)[0].weight.shape == (3 + 7, 5)
    assert jnp.allclose(targets[1], h[2] - g(o) + g(label), rtol=1e-9)
    assert eqx.tree_equal(rule.credit(learner, batch, key=key).memory, learner.memory)


def test_auxiliary_outputs_let_the_last_inverse_invert(x64):
    """Least squares from (o, z) back to h_{L-1}: z is what tells the examples of one class apart."""
    key = jax.random.key(0)
    model = mlp(4, 6, 5, 3, key=key)
    batch = batch_for(key, model, examples=200)
    residuals = []
    for units in (0, 5):
        rule = SimplifiedTargetPropagation(auxiliary_units=units)
        learner = rule.init(model, key=key)
        h, *_ = rule.propose(Learner(model, learner.feedback, learner.memory), batch)
        heard = np.hstack([h[-1], np.ones((len(h[-1]), 1))])
        back = heard @ np.linalg.lstsq(heard, np.asarray(h[2]))[0]
        residuals.append(np.sum((back - h[2]) ** 2))
    assert residuals[1] < 0.2 * residuals[0]


def test_the_inverses_learn_to_take_noise_out(x64):
    """g_l(f_l(h + e)) is brought to h itself; with no noise the cost is the plain reconstruction."""
    key = jax.random.key(3)
    model = mlp(4, 6, 5, 3, key=key)
    batch = batch_for(key, model)
    rule = SimplifiedTargetPropagation(noise=0.0)
    learner = rule.init(model, key=key)
    h, *_ = rule.propose(Learner(model, learner.feedback), batch)
    lower, upper = learner.feedback
    clean = jnp.sum((lower(h[2]) - h[1]) ** 2) + jnp.sum((upper(h[3]) - h[2]) ** 2)
    assert jnp.isclose(rule.credit(learner, batch, key=key).metrics["inverse_loss"], clean / len(batch.x), rtol=1e-12)

    # Where g says the mean of h whatever it hears, noise costs nothing when it is not to be reproduced.
    blank = jax.tree.map(lambda w: 0 * w, learner.feedback)
    costs = [
        SimplifiedTargetPropagation(noise=noise)
        .credit(ap.Learner(model, blank), batch, key=key)
        .metrics["inverse_loss"]
        for noise in (0.0, 1.0)
    ]
    assert jnp.isclose(costs[0], costs[1], rtol=1e-12)


@pytest.mark.parametrize("build", [ap.nets.lenet5, ap.nets.convnet])
@pytest.mark.parametrize("units", [0, 4])
def test_convolutional_nets_learn(build, units, key):
    model = build(key=key)
    batch = batch_for(key, model, examples=2)
    rule = SimplifiedTargetPropagation(auxiliary_units=units)
    learner = rule.init(model, key=key)
    credit = eqx.filter_jit(rule.credit)(learner, batch, key=key)
    assert jax.tree.structure(credit.grads) == jax.tree.structure(learner.params)
    assert all(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(credit.grads))


def test_an_output_that_is_an_image_is_taken_back_too(key):
    k = jax.random.split(key, 2)
    model = ap.nets.Chain([Conv(1, 2, 3, activation="tanh", key=k[0]), Conv(2, 1, 3, key=k[1])], input_shape=(4, 4, 1))
    batch = ap.Batch(jax.random.normal(key, (3, 4, 4, 1)), jax.random.normal(k[0], (3, 4, 4, 1)))
    rule = SimplifiedTargetPropagation(auxiliary_units=3, loss="squared-error")
    credit = rule.credit(rule.init(model, key=key), batch, key=key)
    assert credit.output.shape == (3, 4, 4, 1)
    assert jnp.any(credit.grads[0].stages[0].weight != 0)


def test_what_an_output_stands_for_has_no_error(key):
    output = jax.random.normal(key, (4, 3))
    for loss in ("cross-entropy", "squared-error", "binary-cross-entropy"):
        loss = ap.losses.as_loss(loss)
        assert jnp.allclose(loss.error(output, loss.expected(output)), 0, atol=1e-6)


def test_bad_arguments_are_named(key):
    with pytest.raises(ValueError, match="auxiliary_units must be an integer of at least 0"):
        SimplifiedTargetPropagation(auxiliary_units=-1)
    with pytest.raises(ValueError, match=r"loss=Hinge\(\) is no -log p.*pass loss='cross-entropy'"):
        SimplifiedTargetPropagation(loss="hinge")
    with pytest.raises(TypeError, match="Elman"):
        SimplifiedTargetPropagation().init(ap.nets.elman(4, 5, 3, steps=2, key=key), key=key)
