"""The estimator's numbers against a rule whose bias and covariance are set by hand."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import anyprop as ap
from anyprop.diagnose import estimate

SCALE, DEVIATION = 0.5, 0.3


class Shrunk(ap.Backprop):
    """Half of the gradient plus independent Gaussian noise on every entry."""

    def credit(self, learner, batch, *, key):
        credit = super().credit(learner, batch, key=key)
        leaves, treedef = jax.tree.flatten(credit.grads)
        keys = jax.random.split(key, len(leaves))
        noisy = [
            SCALE * g + DEVIATION * jax.random.normal(k, g.shape, g.dtype) for g, k in zip(leaves, keys, strict=True)
        ]
        return eqx.tree_at(lambda c: c.grads, credit, jax.tree.unflatten(treedef, noisy))


def problem(key):
    x = jax.random.normal(key, (6, 5))
    return ap.nets.mlp(5, 4, 3, key=key), ap.Batch(x, jnp.arange(6) % 3)


def test_it_recovers_scale_bias_variance_and_signal(x64, key):
    net, batch = problem(key)
    rule, draws = Shrunk(), 4000
    learner = rule.init(net, key=key)
    found = estimate(rule, learner, batch, key=key, draws=draws)
    gradient = jax.tree.leaves(ap.contract.exact_gradient(rule.loss, net, batch)[2])
    power = sum(float(jnp.sum(g**2)) for g in gradient)
    entries = sum(g.size for g in gradient)
    variance = entries * DEVIATION**2
    assert list(found.variance) == ["1 Dense", "2 Dense", "all"]
    # Gaussian noise: the trace of its covariance is known to 2 entries DEVIATION^4 / draws, five of which are allowed.
    np.testing.assert_allclose(found.variance["all"], variance, atol=5 * DEVIATION**2 * np.sqrt(2 * entries / draws))
    np.testing.assert_allclose(found.scale["all"], SCALE, atol=5 * DEVIATION / np.sqrt(draws * power))
    np.testing.assert_allclose(found.scale_error["all"], DEVIATION / np.sqrt(draws * power), rtol=0.1)
    np.testing.assert_allclose(found.bias_floor["all"], np.sqrt(variance / draws / power), rtol=0.05)
    np.testing.assert_allclose(found.bias["all"], 1 - SCALE, atol=5 * found.bias_floor["all"])
    np.testing.assert_allclose(found.snr["all"], SCALE**2 * power / variance, rtol=0.2)
    assert found.cosine["all"] > 0.97


def test_the_mean_and_spread_are_those_of_all_draws_at_once(x64, key):
    net, batch = problem(key)
    rule = Shrunk()
    learner = rule.init(net, key=key)
    found = estimate(rule, learner, batch, key=key, draws=12, chunk=4)
    keys = jax.random.split(key, (3, 4)).reshape(-1)
    grads = jax.vmap(lambda k: rule.credit(learner, batch, key=k).grads[0])(keys)
    draws = jnp.concatenate([leaf.reshape(12, -1) for leaf in jax.tree.leaves(grads)], axis=1)
    np.testing.assert_allclose(found.variance["all"], jnp.sum(jnp.var(draws, axis=0, ddof=1)), rtol=1e-10)


def test_a_deterministic_rule_has_no_variance_and_backprop_no_bias(x64, key):
    net, batch = problem(key)
    rule = ap.Backprop()
    found = estimate(rule, rule.init(net, key=key), batch, key=key, draws=4)
    assert found.variance["all"] < 1e-30
    assert found.bias["all"] < 1e-14
    np.testing.assert_allclose(found.scale["all"], 1)


def test_it_can_be_compiled(key):
    net, batch = problem(key)
    rule = Shrunk()
    learner = rule.init(net, key=key)
    found = jax.jit(lambda k: estimate(rule, learner, batch, key=k, draws=4))(key)
    assert found.draws == 4
    assert jnp.isfinite(found.snr["all"])


@pytest.mark.parametrize(("draws", "chunk"), [(1, 1), (4, 0)])
def test_bad_counts(key, draws, chunk):
    net, batch = problem(key)
    rule = ap.Backprop()
    with pytest.raises(ValueError, match=r"draws|chunk"):
        estimate(rule, rule.init(net, key=key), batch, key=key, draws=draws, chunk=chunk)
