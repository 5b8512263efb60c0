"""One optimizer step of every feedback rule on a residual network of twenty layers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest

from anyprop.contract import Batch
from anyprop.nets import resnet20
from anyprop.rules import feedback


@pytest.fixture(scope="module")
def model():
    return eqx.filter_jit(lambda key: resnet20(width=4, key=key))(jax.random.key(0))


@pytest.mark.parametrize("name", feedback.__all__)
def test_a_step_changes_every_parameter(name, model):
    rule, optimizer = getattr(feedback, name)(), optax.sgd(0.1)
    key_init, key_x, key_credit = jax.random.split(jax.random.key(1), 3)
    data = Batch(jax.random.normal(key_x, (2, 32, 32, 3)), jnp.array([3, 7]))

    @eqx.filter_jit
    def step(model):
        learner = rule.init(model, key=key_init)
        credit = rule.credit(learner, data, key=key_credit)
        updates, _ = optimizer.update(credit.grads, optimizer.init(learner.params))
        return learner.params, learner.apply(updates, credit.memory).params

    before, after = step(model)
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert jnp.all(jnp.isfinite(new))
        assert not jnp.array_equal(old, new)
