"""Backprop against central differences and against the explicit three-layer equations."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from anyprop import nets
from anyprop.contract import Batch
from anyprop.losses import CrossEntropy
from anyprop.rules.exact import Backprop


def dense(key):
    return nets.mlp(4, 5, 6, 3, key=key)


def conv(key):
    k1, k2 = jax.random.split(key)
    stages = [nets.Conv(1, 2, 3, activation="tanh", key=k1), nets.Pool("mean", 2), nets.Flatten()]
    return nets.Chain([*stages, nets.Dense(8, 3, key=k2)], input_shape=(4, 4, 1))


def recurrent(key):
    return nets.elman(3, 4, 3, steps=6, key=key)


def recurrent_sequence(key):
    return nets.elman(3, 4, 3, steps=6, sequence=True, key=key)


@pytest.mark.parametrize("build", [dense, conv, recurrent, recurrent_sequence])
def test_is_the_central_difference(build, x64, key):
    model = build(key)
    x = jax.random.normal(key, (7, *model.input_shape))
    y = jax.random.randint(key, (7, *model.output_shape[:-1]), 0, 3)
    rule = Backprop()
    credit = jax.jit(rule.credit)(rule.init(model, key=key), Batch(x, y), key=key)

    params, rest = eqx.partition(model, eqx.is_inexact_array)
    theta, unravel = ravel_pytree(params)
    assert theta.dtype == jnp.float64

    @jax.jit
    def cost(theta):
        return jnp.mean(CrossEntropy()(eqx.combine(unravel(theta), rest)(x), y))

    epsilon = 1e-5
    axes = np.eye(theta.size)
    slopes = [(cost(theta + epsilon * e) - cost(theta - epsilon * e)) / (2 * epsilon) for e in axes]
    gradient = ravel_pytree(credit.grads[0])[0]
    assert np.linalg.norm(gradient - jnp.stack(slopes)) < 1e-6 * np.linalg.norm(gradient)
    np.testing.assert_allclose(credit.loss, cost(theta), rtol=1e-14)


def test_is_the_three_layer_sigmoid_equations(x64, key):
    model = nets.mlp(3, 5, 2, activation="sigmoid", output="sigmoid", bias=False, key=key)
    x = jax.random.normal(key, (6, 3))
    t = jax.random.uniform(key, (6, 2))
    rule = Backprop(loss="squared-error")
    credit = rule.credit(rule.init(model, key=key), Batch(x, t), key=key)

    w_h, w_y = (np.asarray(site.weight) for site in nets.sites(model))
    h = 1 / (1 + np.exp(-np.asarray(x) @ w_h))
    y = 1 / (1 + np.exp(-h @ w_y))
    delta_y, d_y, d_h = (y - t) * y * (1 - y), np.zeros_like(w_y), np.zeros_like(w_h)
    for k in range(6):
        for j in range(5):
            d_y[j] += delta_y[k] * h[k, j]
            d_h[:, j] += (delta_y[k] @ w_y[j]) * h[k, j] * (1 - h[k, j]) * x[k]

    gradient = nets.sites(credit.grads[0])
    np.testing.assert_allclose(6 * gradient[0].weight, d_h, rtol=1e-12)
    np.testing.assert_allclose(6 * gradient[1].weight, d_y, rtol=1e-12)
    np.testing.assert_allclose(6 * credit.loss, 0.5 * np.sum((y - t) ** 2), rtol=1e-12)


def test_refuses_what_it_cannot_differentiate(key):
    with pytest.raises(TypeError, match=r"pass an equinox\.Module"):
        Backprop().init(jax.nn.relu, key=key)
    with pytest.raises(TypeError, match="nothing to train"):
        Backprop().init(nets.Flatten(), key=key)
