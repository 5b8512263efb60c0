"""The natural gradient against Newton on softmax regression, and its Fisher matrix by enumeration."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from anyprop import nets
from anyprop.contract import Batch
from anyprop.losses import Loss
from anyprop.rules.exact import Backprop, NaturalGradient, Newton


def credit(rule, model, batch, key):
    return jax.jit(rule.credit)(rule.init(model, key=key), batch, key=key)


def test_is_newton_on_softmax_regression(x64, key):
    model = nets.mlp(4, 3, key=key)
    batch = Batch(jax.random.normal(key, (12, 4)), jnp.arange(12) % 3)
    natural = credit(NaturalGradient(damping=0.01), model, batch, key)
    newton = credit(Newton(damping=0.01), model, batch, key)
    np.testing.assert_allclose(ravel_pytree(natural.grads)[0], ravel_pytree(newton.grads)[0], rtol=1e-10)
    assert natural.metrics["residual"] < 1e-12


@pytest.mark.parametrize("loss", ["cross-entropy", "binary-cross-entropy", "squared-error"])
def test_solves_with_the_expected_outer_product_of_scores(loss, x64, key):
    model = nets.mlp(3, 4, 2, key=key)
    x = jax.random.normal(key, (5, 3))
    rule = NaturalGradient(damping=0.05, loss=loss)
    params, rest = eqx.partition(model, eqx.is_inexact_array)
    theta, unravel = ravel_pytree(params)

    @jax.jit
    def score(example, y):
        """d/dtheta of log p(y | x) = -C."""
        return jax.grad(lambda t: -rule.loss(eqx.combine(unravel(t), rest)(example), y)[0])(theta)

    fisher = np.zeros((theta.size, theta.size))
    for example in x[:, None]:
        output = model(example)[0]
        if loss == "cross-entropy":
            cases = [(jax.nn.softmax(output)[c], jnp.array([c])) for c in range(2)]
        elif loss == "binary-cross-entropy":
            s = jax.nn.sigmoid(output)
            outcomes = [jnp.array(b, float) for b in np.ndindex(2, 2)]
            cases = [(jnp.prod(jnp.where(b == 1, s, 1 - s)), b[None]) for b in outcomes]
        else:  # y = output + e, e ~ N(0, I): four points with the same mean and covariance
            cases = [(0.25, (output + sign * np.sqrt(2) * e)[None]) for e in np.eye(2) for sign in (-1, 1)]
        for p, y in cases:
            fisher += p * np.outer(score(example, y), score(example, y)) / len(x)

    y = jax.random.uniform(jax.random.key(1), (5, 2)) if loss != "cross-entropy" else jnp.arange(5) % 2
    direction = ravel_pytree(credit(rule, model, Batch(x, y), key).grads)[0]
    gradient = ravel_pytree(credit(Backprop(loss=loss), model, Batch(x, y), key).grads)[0]
    np.testing.assert_allclose(fisher @ direction + 0.05 * direction, gradient, rtol=1e-9, atol=1e-12)


def test_does_not_depend_on_the_units_of_the_input(x64, key):
    # Without damping a step changes the predictions alike, however the inputs are scaled; backprop does not.
    x, y = jax.random.normal(key, (12, 3)), jax.random.normal(jax.random.key(1), (12, 2))
    scale = jnp.array([1.0, 10.0, 0.1])
    model = nets.mlp(3, 2, bias=False, key=key)
    scaled = eqx.tree_at(lambda m: m.stages[0].weight, model, model.stages[0].weight / scale[:, None])

    def change(rule, model, x):
        return x @ credit(rule, model, Batch(x, y), key).grads[0].stages[0].weight

    rule = NaturalGradient(damping=1e-12, loss="squared-error")
    np.testing.assert_allclose(change(rule, model, x), change(rule, scaled, x * scale), rtol=1e-6)
    plain = Backprop(loss="squared-error")
    assert not np.allclose(change(plain, model, x), change(plain, scaled, x * scale), rtol=0.1)


def test_refuses_bad_input(key):
    class Absolute(Loss):
        def __call__(self, output, y):
            return jnp.sum(jnp.abs(output - y), axis=1)

    with pytest.raises(ValueError, match="damping must be a finite number above zero"):
        NaturalGradient(damping=0.0)
    with pytest.raises(TypeError, match=r"loss=Absolute has no output distribution.*choose Newton"):
        NaturalGradient(loss=Absolute())
    with pytest.raises(TypeError, match=r"model has 7,850 parameters.*NaturalGradient"):
        NaturalGradient().init(nets.mlp(784, 10, key=key), key=key)
