"""RTRL against backpropagation through time, and its memory against the length of the sequence."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from anyprop import nets
from anyprop.contract import Batch
from anyprop.rules.exact import Backprop, RealTimeRecurrentLearning


@pytest.mark.parametrize("sequence", [False, True])
@pytest.mark.parametrize("activation", ["tanh", "softplus"])
@pytest.mark.parametrize("loss", ["cross-entropy", "squared-error"])
def test_is_backpropagation_through_time(sequence, activation, loss, x64, key):
    model = nets.elman(3, 5, 4, steps=12, activation=activation, sequence=sequence, key=key)
    # A contracting recurrence keeps 12 softplus steps in range; the weights have no symmetry either way.
    model = eqx.tree_at(lambda m: m.stages[0].recurrent.weight, model, replace_fn=lambda w: 0.7 * w)
    model = eqx.tree_at(lambda m: m.stages[0].input.bias, model, jax.random.normal(key, 5))
    x = jax.random.normal(key, (6, 12, 3))
    y = jax.random.randint(key, (6, 12) if sequence else (6,), 0, 4)
    forward, backward = (
        jax.jit(rule.credit)(rule.init(model, key=key), Batch(x, y), key=key)
        for rule in (RealTimeRecurrentLearning(loss=loss), Backprop(loss=loss))
    )
    expected = ravel_pytree(backward.grads)[0]
    assert expected.dtype == jnp.float64
    np.testing.assert_allclose(ravel_pytree(forward.grads)[0], expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(forward.loss, backward.loss, rtol=1e-12)
    np.testing.assert_allclose(forward.output, backward.output, rtol=1e-12)


def test_trains_a_layer_without_a_bias(x64, key):
    model = nets.elman(3, 5, 4, steps=6, key=key)
    model = eqx.tree_at(lambda m: m.stages[0].input.bias, model, None)
    batch = Batch(jax.random.normal(key, (6, 6, 3)), jnp.arange(6) % 4)
    forward, backward = (
        jax.jit(rule.credit)(rule.init(model, key=key), batch, key=key).grads
        for rule in (RealTimeRecurrentLearning(), Backprop())
    )
    assert jax.tree.structure(forward) == jax.tree.structure(backward)
    np.testing.assert_allclose(ravel_pytree(forward)[0], ravel_pytree(backward)[0], rtol=1e-10, atol=1e-10)


def scratch(rule, steps, sequence, key):
    """Bytes that the compiled update needs besides its inputs and outputs."""
    model = nets.elman(3, 8, 2, steps=steps, sequence=sequence, key=key)
    batch = Batch(jnp.zeros((5, steps, 3)), jnp.zeros((5, steps) if sequence else 5, int))
    compiled = jax.jit(rule.credit).lower(rule.init(model, key=key), batch, key=key).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_memory_does_not_grow_with_time(key):
    rule = RealTimeRecurrentLearning()
    assert scratch(rule, 200, False, key) == scratch(rule, 10, False, key)
    assert scratch(Backprop(), 200, False, key) > 10 * scratch(Backprop(), 10, False, key)
    # Answering at every step, all that grows is the answers themselves and a counter of 4 bytes a step.
    growth = scratch(rule, 200, True, key) - scratch(rule, 10, True, key)
    assert growth <= 190 * (5 * 2 * 4 + 4)


def test_refuses_other_models(key):
    rule = RealTimeRecurrentLearning()
    with pytest.raises(TypeError, match=r"an Elman layer and a dense one; pass ap\.nets\.elman"):
        rule.init(nets.mlp(3, 4, 2, key=key), key=key)
    stages = nets.elman(3, 4, 2, steps=5, sequence=True, key=key).stages
    pooled = nets.Chain([stages[0], nets.Activate("tanh"), stages[1]], input_shape=(5, 3))
    with pytest.raises(TypeError, match="directly followed by a dense one"):
        rule.init(pooled, key=key)
