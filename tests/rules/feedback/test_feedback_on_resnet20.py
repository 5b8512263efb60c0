"""One optimizer step of every feedback rule on a residual network of twenty layers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from anyprop.contract import Batch
from anyprop.nets import resnet20
from anyprop.rules import feedback


@pytest.fixture(scope="module")
def model():
    # Its weights are drawn by NumPy, which saves compiling a random generator for every shape.
    rng = np.random.default_rng(0)

    def fill(leaf):
        if leaf.ndim == 1:
            return jnp.ones(leaf.shape)
        return jnp.asarray(rng.normal(size=leaf.shape) * np.prod(leaf.shape[:-1]) ** -0.5, leaf.dtype)

    return jax.tree.map(fill, eqx.filter_eval_shape(resnet20, key=jax.random.key(0)))


@pytest.mark.parametrize("name", feedback.__all__)
def test_a_step_changes_every_parameter(name, model):
    rule, optimizer = getattr(feedback, name)(), optax.sgd(0.1)
    key_init, key_x, key_credit = jax.random.split(jax.random.key(1), 3)
    data = Batch(jax.random.normal(key_x, (2, 32, 32, 3)), jnp.array([3, 7]))
    learner = rule.init(model, key=key_init)
    credit = eqx.filter_jit(rule.credit)(learner, data, key=key_credit)
    updates, _ = optimizer.update(credit.grads, optimizer.init(learner.params))
    later = learner.apply(updates, credit.memory)
    for old, new in zip(jax.tree.leaves(learner.params), jax.tree.leaves(later.params), strict=True):
        assert jnp.all(jnp.isfinite(new))
        assert jnp.max(jnp.abs(new - old)) > 1e-5  # more than rounding: one step moves them by 1e-4 to 1
