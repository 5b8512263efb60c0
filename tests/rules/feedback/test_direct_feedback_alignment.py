import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anyprop.contract import Learner
from anyprop.nets import Chain, Conv, Dense, Flatten, Pool, Residual, affines, elman, local_update, mlp
from anyprop.rules.exact import Backprop
from anyprop.rules.feedback import DirectFeedbackAlignment


def weights(grads):
    return [site.weight for site in affines(grads)]


def test_with_one_hidden_layer_and_the_forward_weight_it_is_backprop(x64, batch, same, run):
    key = jax.random.key(0)
    model = mlp(6, 7, 4, key=key)
    learner = Learner(model, memory=[model.stages[1].weight])
    exact = run(Backprop(), learner, batch(model))
    credit = run(DirectFeedbackAlignment(), learner, batch(model))
    same(credit.grads, exact.grads)
    same((credit.loss, credit.output), (exact.loss, exact.output))


def test_in_a_deep_linear_network_the_product_of_the_weights_above_makes_it_backprop(x64, batch, same, run):
    key = jax.random.key(0)
    model = mlp(6, 7, 5, 8, 4, activation="identity", key=key)
    W = [site.weight for site in affines(model)]
    learner = Learner(model, memory=[W[1] @ W[2] @ W[3], W[2] @ W[3], W[3]])
    exact = run(Backprop(), learner, batch(model))
    same(run(DirectFeedbackAlignment(), learner, batch(model)).grads, exact.grads)


def test_the_equations_of_a_dense_net(x64, batch, same, run):
    key = jax.random.key(0)
    model = mlp(6, 7, 5, 4, activation="tanh", output="sigmoid", key=key)
    rule = DirectFeedbackAlignment(loss="squared-error")
    learner, data = rule.init(model, key=jax.random.key(1)), batch(model)
    output, traces = model.record(data.x)
    e = rule.loss.error(output, data.y) / len(data.x)
    deltas = [(1 - t.output**2) * (e @ B.T) for t, B in zip(traces, learner.memory, strict=False)]
    deltas.append(output * (1 - output) * e)
    expected = [t.input.T @ delta for t, delta in zip(traces, deltas, strict=True)]
    credit = run(rule, learner, data)
    same(weights(credit.grads[0]), expected)


def test_between_two_layers_the_error_passes_pooling_exactly(x64, batch, same, run):
    key = jax.random.key(0)
    k1, k2, k3 = jax.random.split(key, 3)
    model = Chain(
        [
            Conv(2, 3, 3, activation="tanh", key=k1),
            Pool("max", 2),
            Conv(3, 4, 3, padding="VALID", activation="sigmoid", key=k2),
            Flatten(),
            Dense(16, 4, key=k3),
        ],
        input_shape=(8, 8, 2),
    )
    rule = DirectFeedbackAlignment()
    learner, data = rule.init(model, key=jax.random.key(1)), batch(model)
    assert [B.shape for B in learner.memory] == [(4 * 4 * 3, 4), (16, 4)]
    output, _ = model.record(data.x)
    signal = rule.loss.error(output, data.y) / len(data.x) @ learner.memory[0].T
    first, pool = model.stages[:2]
    _, pull = jax.vjp(lambda a: pool(first.activation(a)), first.drive(data.x))
    (delta,) = pull(signal.reshape(-1, 4, 4, 3))
    expected, _ = local_update(first, data.x, delta)
    same(weights(run(rule, learner, data).grads[0])[0], expected)


def test_in_a_residual_block_the_skip_passes_what_it_gets(x64, batch, same, run):
    key = jax.random.key(0)
    k1, k2, k3, k4 = jax.random.split(key, 4)
    model = Chain(
        [
            Dense(4, 5, activation="tanh", key=k1),
            Residual([Dense(5, 5, activation="tanh", key=k2)]),
            Dense(5, 3, key=k3),
        ]
    )
    rule = DirectFeedbackAlignment()
    learner, data = rule.init(model, key=k4), batch(model)
    output, traces = model.record(data.x)
    e = rule.loss.error(output, data.y) / len(data.x)
    into_body, into_last = (e @ B.T for B in learner.memory)
    expected = [
        traces[0].input.T @ ((1 - traces[0].output ** 2) * (into_body + into_last)),
        traces[1].input.T @ ((1 - traces[1].output ** 2) * into_last),
        traces[2].input.T @ e,
    ]
    same(weights(run(rule, learner, data).grads[0]), expected)


def test_feedback_is_drawn_within_the_papers_range(key):
    model = mlp(5, 400, 100, 30, key=key)
    for B, units in zip(DirectFeedbackAlignment().init(model, key=key).memory, (400, 100), strict=True):
        assert B.shape == (units, 30)
        assert 0.98 * units**-0.5 < jnp.max(jnp.abs(B)) <= units**-0.5
        np.testing.assert_allclose(jnp.std(B), (3 * units) ** -0.5, rtol=0.05)


def test_no_feedback_weight_corresponds_to_a_forward_one(key):
    rule = DirectFeedbackAlignment()
    assert rule.feedback_weights(rule.init(mlp(4, 5, 3, key=key), key=key)) is None


def test_an_unknown_initialiser_is_refused():
    with pytest.raises(ValueError, match=r"init_feedback=.* is unknown; pass one of"):
        DirectFeedbackAlignment(init_feedback="uniform")


def test_a_recurrent_network_is_refused(key):
    with pytest.raises(TypeError, match="pass a chain without"):
        DirectFeedbackAlignment().init(elman(3, 4, 2, steps=5, key=key), key=key)
