import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from anyprop.contract import Batch, Learner
from anyprop.nets import affines, affines_above_first, mlp
from anyprop.rules.exact import Backprop
from anyprop.rules.feedback import FeedbackAlignment


def test_with_the_forward_weights_it_is_backprop(x64, any_net, batch, same, run):
    key = jax.random.key(0)
    model = any_net(key)
    data = batch(model)
    learner = Learner(model, memory=[site.weight for site in affines_above_first(model)])
    exact = run(Backprop(), Learner(model), data)
    credit = run(FeedbackAlignment(), learner, data)
    same(credit.grads[0], exact.grads[0])
    same((credit.loss, credit.output), (exact.loss, exact.output))


def test_the_equations_of_a_dense_net(x64, batch, same, run):
    key = jax.random.key(0)
    model = mlp(6, 7, 5, 4, activation="tanh", key=key)
    rule = FeedbackAlignment(loss="squared-error")
    learner = rule.init(model, key=jax.random.key(1))
    data = batch(model)
    output, traces = model.record(data.x)
    delta = rule.loss.error(output, data.y) / len(data.x)
    expected = []
    for trace, B in zip(reversed(traces), [*reversed(learner.memory), None], strict=True):
        expected.insert(0, trace.input.T @ delta)
        if B is not None:
            delta = (1 - trace.input**2) * (delta @ B.T)
    grads = run(rule, learner, data).grads[0]
    same([site.weight for site in affines(grads)], expected)


def test_a_linear_network_comes_to_use_its_random_feedback(angle):
    """The linear problem of Lillicrap et al.: 30-20-10 units, a random matrix as target, B ~ U[-0.5, 0.5]."""
    k_target, k_feedback, k_model, k_data = jax.random.split(jax.random.key(3), 4)
    target = jax.random.uniform(k_target, (30, 10), minval=-1.0)
    feedback = [jax.random.uniform(k_feedback, (20, 10), minval=-0.5, maxval=0.5)]

    def small(key, shape):
        return jax.random.uniform(key, shape, minval=-0.01, maxval=0.01)

    model = mlp(30, 20, 10, activation="identity", bias=False, init=small, key=k_model)
    rule, optimizer = FeedbackAlignment(loss="squared-error"), optax.sgd(2e-3)
    learner = Learner(model, memory=feedback)

    def step(carry, key):
        learner, state = carry
        x = jax.random.normal(key, (20, 30))
        credit = rule.credit(learner, Batch(x, x @ target), key=key)
        updates, state = optimizer.update(credit.grads, state)
        return (learner.apply(updates, credit.memory), state), credit.loss

    state = (learner, optimizer.init(learner.params))
    x = jax.random.normal(jax.random.key(9), (200, 30))
    angles, losses = [], []
    for keys in jax.random.split(k_data, (4, 400)):
        e = state[0].model(x) - x @ target
        angles.append(angle(e @ feedback[0].T, e @ affines(state[0].model)[1].weight.T))
        state, loss = jax.lax.scan(step, state, keys)
        losses.append(float(jnp.mean(loss)))
    assert 60 < angles[0] < 120
    assert angles[1] < 90
    assert np.all(np.diff(angles) < 0)
    assert np.all(np.diff(losses) < 0)


def test_feedback_weights_have_the_shapes_of_the_weights_and_never_change(any_net, batch, key, run):
    model = any_net(key)
    rule = FeedbackAlignment()
    learner = rule.init(model, key=key)
    feedback = rule.feedback_weights(learner)
    assert [B.shape for B in feedback] == [site.weight.shape for site in affines_above_first(model)]
    credit = run(rule, learner, batch(model))
    assert all(jnp.array_equal(a, b) for a, b in zip(feedback, credit.memory, strict=True))


def test_an_unknown_initialiser_is_refused():
    with pytest.raises(ValueError, match=r"init_feedback=.* is unknown; pass one of"):
        FeedbackAlignment(init_feedback="glorot-norml")


def test_a_model_that_is_no_chain_is_refused(key):
    with pytest.raises(TypeError, match="FeedbackAlignment needs"):
        FeedbackAlignment().init(jnp.tanh, key=key)
