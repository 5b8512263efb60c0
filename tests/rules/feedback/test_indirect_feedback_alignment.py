import jax
import jax.numpy as jnp
import pytest

from anyprop.contract import Learner
from anyprop.nets import affines, elman, local_update, mlp, sites
from anyprop.rules.exact import Backprop
from anyprop.rules.feedback import IndirectFeedbackAlignment


def test_with_one_hidden_layer_and_the_forward_weight_it_is_backprop(x64, batch, same, run):
    key = jax.random.key(0)
    model = mlp(6, 7, 4, key=key)
    learner = Learner(model, memory=model.stages[1].weight)
    exact = run(Backprop(), learner, batch(model))
    credit = run(IndirectFeedbackAlignment(), learner, batch(model))
    same(credit.grads, exact.grads)
    same((credit.loss, credit.output), (exact.loss, exact.output))


def test_the_equations_of_a_dense_net(x64, batch, same, run):
    key = jax.random.key(0)
    model = mlp(6, 7, 5, 8, 4, activation="tanh", output="sigmoid", key=key)
    rule = IndirectFeedbackAlignment(loss="squared-error")
    learner, data = rule.init(model, key=jax.random.key(1)), batch(model)
    output, traces = model.record(data.x)
    e = rule.loss.error(output, data.y) / len(data.x)
    arriving = e @ learner.memory.T
    expected = []
    for site, trace in zip(sites(model)[:-1], traces, strict=False):
        if expected:
            arriving = delta @ site.weight
        delta = (1 - trace.output**2) * arriving
        expected.append((trace.input.T @ delta, delta.sum(0)))
    delta = output * (1 - output) * e
    expected.append((traces[-1].input.T @ delta, delta.sum(0)))
    grads = run(rule, learner, data).grads[0]
    same([(site.weight, site.bias) for site in affines(grads)], expected)


def test_the_error_travels_up_through_pooling_and_skips(x64, feedforward_net, batch, same, run):
    """Against finite differences: a layer's error is how far its output moves when a_1 moves along B^T e."""
    key = jax.random.key(0)
    model = feedforward_net(key)
    rule = IndirectFeedbackAlignment()
    learner, data = rule.init(model, key=jax.random.key(1)), batch(model)
    output, traces = model.record(data.x)
    e = rule.loss.error(output, data.y) / len(data.x)
    signal = (e @ learner.memory.T).reshape(traces[0].drive.shape)
    first = sites(model)[0]

    def moved(amount):
        h, after = first.activation(traces[0].drive + amount * signal), ()
        for stage in model.stages[1:]:
            h, own = stage.record(h)
            after += own
        return after

    up, down = moved(1e-4), moved(-1e-4)
    own = sites(model)
    expected = [
        local_update(site, trace.input, (plus.output - minus.output) / 2e-4)[0]
        for site, trace, plus, minus in zip(own[1:-1], traces[1:], up, down, strict=False)
    ]
    grads = run(rule, learner, data).grads[0]
    same([site.weight for site in sites(grads)[1:-1]], expected, rtol=1e-7)


def test_the_last_layer_learns_from_its_own_error(x64, feedforward_net, batch, same, run):
    key = jax.random.key(0)
    model = feedforward_net(key)
    rule = IndirectFeedbackAlignment()
    learner = rule.init(model, key=key)
    exact = run(Backprop(), learner, batch(model)).grads[0].stages[-1]
    same(run(rule, learner, batch(model)).grads[0].stages[-1], exact)


def test_one_random_matrix_whatever_the_depth(key):
    model = mlp(5, 6, 7, 8, 3, key=key)
    rule = IndirectFeedbackAlignment()
    learner = rule.init(model, key=key)
    assert learner.memory.shape == (6, 3)
    assert jnp.max(jnp.abs(learner.memory)) <= 6**-0.5
    assert rule.feedback_weights(learner) is None


def test_an_unknown_initialiser_is_refused():
    with pytest.raises(ValueError, match=r"init_feedback=.* is unknown; pass one of"):
        IndirectFeedbackAlignment(init_feedback="uniform")


def test_a_recurrent_network_is_refused(key):
    with pytest.raises(TypeError, match="pass a chain without"):
        IndirectFeedbackAlignment().init(elman(3, 4, 2, steps=5, key=key), key=key)
