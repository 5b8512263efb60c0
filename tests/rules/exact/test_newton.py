"""Newton's method on quadratics, on logistic regression and at a saddle."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from anyprop import nets
from anyprop.contract import Batch
from anyprop.losses import CrossEntropy, Loss
from anyprop.rules.exact import Newton


class Curved(Loss):
    """C = 1/2 sum_i y_i output_i^2: with x = 1 a quadratic in the weights, whose curvatures are y."""

    def __call__(self, output, y):
        return 0.5 * jnp.sum(y * output**2, axis=1)


def linear(fan_in, fan_out, key, weight=None):
    model = nets.mlp(fan_in, fan_out, bias=False, key=key)
    return model if weight is None else eqx.tree_at(lambda m: m.stages[0].weight, model, weight)


@eqx.filter_jit
def step(rule, model, batch, key):
    learner = rule.init(model, key=key)
    credit = rule.credit(learner, batch, key=key)
    optimizer = optax.sgd(1.0)
    updates, _ = optimizer.update(credit.grads, optimizer.init(learner.params), learner.params)
    return learner.apply(updates, credit.memory).model, credit


@pytest.mark.parametrize("saddle_free", [False, True])
def test_one_step_solves_a_convex_quadratic(saddle_free, x64, key):
    x, y = jax.random.normal(key, (20, 4)), jax.random.normal(jax.random.key(1), (20, 2))
    rule = Newton(saddle_free=saddle_free, loss="squared-error")
    solved, credit = step(rule, linear(4, 2, key), Batch(x, y), key)
    best = np.linalg.lstsq(x, y)[0]
    np.testing.assert_allclose(solved.stages[0].weight, best, rtol=1e-10, atol=1e-12)
    assert credit.metrics["negative"] == 0
    assert credit.metrics["residual"] == 0


def test_converges_quadratically_on_logistic_regression(x64, key):
    x = jax.random.normal(key, (40, 3))
    y = (x @ jnp.array([[1.0], [-1.0], [0.5]]) + jax.random.normal(jax.random.key(1), (40, 1)) > 0).astype(float)
    rule = Newton(loss="binary-cross-entropy")
    model, path = linear(3, 1, key, jnp.zeros((3, 1))), []
    for _ in range(9):
        path.append(model.stages[0].weight)
        model, _ = step(rule, model, Batch(x, y), key)
    errors = [float(jnp.linalg.norm(w - path[-1])) for w in path[:-1]]
    assert errors[-1] < 1e-14
    # Each error is of the order of the last one's square, down to where rounding hides it.
    ratios = [after / before**2 for before, after in itertools.pairwise(errors) if after > 1e-12]
    assert len(ratios) >= 3
    assert max(ratios) < 1


def test_goes_to_a_saddle_and_saddle_free_away_from_it(x64, key):
    batch = Batch(jnp.ones((1, 1)), jnp.array([[2.0, -0.5]]))
    start = jnp.array([[0.3, 0.2]])
    plain, credit = step(Newton(loss=Curved()), linear(1, 2, key, start), batch, key)
    np.testing.assert_allclose(plain.stages[0].weight, 0, atol=1e-15)
    assert credit.metrics["negative"] == 1
    # Along the negative curvature |kappa|^-1 g = -theta: the distance from the saddle doubles.
    repelled, _ = step(Newton(saddle_free=True, loss=Curved()), linear(1, 2, key, start), batch, key)
    np.testing.assert_allclose(repelled.stages[0].weight, [[0.0, 0.4]], atol=1e-15)


def test_damping_is_added_to_the_hessian(x64, key):
    model, batch = linear(1, 2, key, jnp.ones((1, 2))), Batch(jnp.ones((1, 1)), jnp.array([[2.0, -0.5]]))
    _, credit = step(Newton(damping=1.0, loss=Curved()), model, batch, key)
    np.testing.assert_allclose(credit.grads[0].stages[0].weight, [[2 / 3, -0.5 / 0.5]], rtol=1e-14)
    _, credit = step(Newton(damping=1.0, saddle_free=True, loss=Curved()), model, batch, key)
    np.testing.assert_allclose(credit.grads[0].stages[0].weight, [[2 / 3, -0.5 / 1.5]], rtol=1e-14)


def test_takes_no_step_where_there_is_no_curvature(x64, key):
    # Softmax does not see a constant added to all logits, so its Hessian is singular at any weights.
    x, y = jax.random.normal(key, (30, 2)), jax.random.randint(key, (30,), 0, 3)
    _, credit = step(Newton(), linear(2, 3, key), Batch(x, y), key)
    direction = credit.grads[0].stages[0].weight
    assert jnp.all(jnp.isfinite(direction))
    np.testing.assert_allclose(direction.sum(1), 0, atol=1e-12)
    assert credit.metrics["residual"] < 1e-12


def test_solves_with_the_hessian_of_a_deep_net(x64, key):
    model = nets.mlp(2, 4, 3, key=key)
    batch = Batch(jax.random.normal(key, (9, 2)), jnp.arange(9) % 3)
    _, credit = step(Newton(damping=0.1), model, batch, key)
    params, rest = eqx.partition(model, eqx.is_inexact_array)
    theta, unravel = ravel_pytree(params)

    def cost(theta):
        return jnp.mean(CrossEntropy()(eqx.combine(unravel(theta), rest)(batch.x), batch.y))

    direction = ravel_pytree(credit.grads)[0]
    damped = jax.hessian(cost)(theta) + 0.1 * jnp.eye(theta.size)
    np.testing.assert_allclose(damped @ direction, jax.grad(cost)(theta), rtol=1e-9, atol=1e-12)
    assert credit.metrics["negative"] == jnp.sum(jnp.linalg.eigvalsh(damped) < 0.1 - 1e-12)


def test_refuses_bad_input(key):
    with pytest.raises(ValueError, match="damping must be a finite number, zero or above"):
        Newton(damping=-1.0)
    with pytest.raises(TypeError, match=r"model has 7,850 parameters.*at most 5,000.*Backprop"):
        Newton().init(nets.mlp(784, 10, key=key), key=key)
