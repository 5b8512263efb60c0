import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anyprop.contract import Batch, exact_gradient
from anyprop.nets import Activate, Chain, Conv, Dense, Flatten, Pool, Residual, elman, mlp
from anyprop.rules.equilibrium import TemporalDerivative


def net(key, output="identity"):
    """Four layers, all widths different, with biases."""
    chain = mlp(6, 8, 7, 5, 3, activation="sigmoid", output=output, init="lecun-normal", key=key)
    return jax.tree.map(lambda w: w + 0.1 if w.ndim == 1 else 2 * w, chain)


def examples(key, count=5):
    return Batch(jax.random.normal(key, (count, 6)), jnp.arange(count) % 3)


def credit(rule, model, batch):
    return rule.credit(rule.init(model, key=jax.random.key(0)), batch, key=jax.random.key(1))


def vectors(tree):
    """Weight and bias of each layer in one vector."""
    return [np.concatenate([np.ravel(site.weight), np.ravel(site.bias)]) for site in tree.stages]


def errors(update, gradient):
    return np.array(
        [np.linalg.norm(u - g) / np.linalg.norm(g) for u, g in zip(vectors(update), vectors(gradient), strict=True)]
    )


@pytest.mark.parametrize("loss", ["cross-entropy", "squared-error"])
def test_it_tends_to_backprop_as_nudge_times_feedback(x64, key, loss):
    model, batch = net(key), examples(key)

    def update(nudge, feedback):
        rule = TemporalDerivative(nudge, feedback, loss=loss)
        return credit(rule, model, batch).grads[0]

    gradient = exact_gradient(TemporalDerivative(loss=loss).loss, model, batch)[2]
    far, near = errors(update(0.1, 0.1), gradient), errors(update(0.1, 0.05), gradient)
    assert far[-1] < 1e-12  # the outputs have the error itself
    assert np.all(far[:-1] < 2 * 0.1 * 0.1)
    np.testing.assert_allclose(far[:-1] / near[:-1], 2, atol=0.05)
    np.testing.assert_allclose(errors(update(0.05, 0.1), gradient)[2], near[2], rtol=1e-9)  # k alpha counts
    assert np.all(errors(update(1e-3, 1e-2), gradient) < 2 * 1e-3 * 1e-2)


def test_it_is_the_pass_up_and_the_pass_down(x64, key):
    model, batch, k, alpha = net(key, "sigmoid"), examples(key), 0.3, 0.4
    found = credit(TemporalDerivative(k, alpha, loss="squared-error"), model, batch).grads[0]
    weights = [(np.asarray(site.weight), np.asarray(site.bias)) for site in model.stages]

    def f(a):
        return 1 / (1 + np.exp(-a))

    h, a = [np.asarray(batch.x)], [None]
    for w, b in weights:
        a.append(h[-1] @ w + b)
        h.append(f(a[-1]))
    moved = h[4] + k * (np.eye(3)[np.asarray(batch.y)] - h[4])
    for layer in (4, 3, 2, 1):
        drift = (moved - h[layer]) / (k * alpha ** (4 - layer))
        np.testing.assert_allclose(found.stages[layer - 1].weight, -h[layer - 1].T @ drift / 5, rtol=1e-9)
        np.testing.assert_allclose(found.stages[layer - 1].bias, -drift.mean(0), rtol=1e-9)
        if layer > 1:
            moved = f(a[layer - 1] + alpha * (moved - h[layer]) @ weights[layer - 1][0].T)


def test_sigmoid_outputs_with_squared_error_descend_the_cost_that_matches_them(x64, key):
    model, batch = net(key, "sigmoid"), examples(key)
    found = credit(TemporalDerivative(1e-4, 0.1, loss="squared-error"), model, batch)
    logits = eqx.tree_at(lambda c: c.stages, model, (*model.stages[:-1], net(key).stages[-1]))
    gradient = exact_gradient(TemporalDerivative(loss="binary-cross-entropy").loss, logits, batch)[2]
    assert np.all(errors(found.grads[0], gradient) < 1e-4)
    np.testing.assert_array_equal(found.output, model(batch.x))


def test_convolutions_and_pooling_are_passed_as_by_backprop(x64, key):
    keys = jax.random.split(key, 3)
    model = Chain(
        [Conv(1, 2, 3, activation="tanh", key=keys[0]), Pool("max", 2), Flatten(), Dense(8, 3, key=keys[1])],
        input_shape=(4, 4, 1),
    )
    batch = Batch(jax.random.normal(keys[2], (3, 4, 4, 1)), jnp.arange(3))
    rule = TemporalDerivative(1e-3, 1e-3)
    found = credit(rule, model, batch).grads[0]
    gradient = exact_gradient(rule.loss, model, batch)[2]
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(gradient), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("bad", [{"nudge": 0.0}, {"nudge": -0.1}, {"feedback": 0.0}, {"feedback": -1.0}])
def test_numbers_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        TemporalDerivative(**bad)


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda key: Dense(4, 3, key=key), "needs a chain"),
        (lambda key: elman(4, 5, 3, key=key), r"through a Elman \(stages\[0\]\).*ap\.nets\.mlp"),
        (lambda key: Chain([Dense(4, 3, key=key), Activate("tanh")]), r"Activate at the end \(stages\[1\]\)"),
        (lambda key: mlp(4, 5, 3, activation="step", key=key), "sign or a step.*pass activation='tanh'"),
        (lambda key: Chain([Residual([Dense(4, 4, key=key)]), Dense(4, 3, key=key)], input_shape=(4,)), "Residual"),
    ],
)
def test_models_of_the_wrong_kind_are_refused(build, match, key):
    with pytest.raises(TypeError, match=match):
        TemporalDerivative().init(build(key), key=key)
