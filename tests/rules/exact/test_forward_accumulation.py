"""Forward accumulation against backprop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from anyprop import nets
from anyprop.contract import Batch
from anyprop.rules.exact import Backprop, ForwardAccumulation


@pytest.mark.parametrize("loss", ["cross-entropy", "squared-error"])
@pytest.mark.parametrize("net", ["dense", "residual", "elman"])
def test_is_backprop(net, loss, x64, key):
    k1, k2 = jax.random.split(key)
    model = {
        "dense": lambda: nets.mlp(4, 6, 5, 3, key=key),
        "residual": lambda: nets.Chain(
            [
                nets.Dense(4, 5, key=k1),
                nets.Residual([nets.Dense(5, 5, key=k2), nets.Norm(5)]),
                nets.Dense(5, 3, key=k1),
            ]
        ),
        "elman": lambda: nets.elman(4, 5, 3, steps=6, key=key),
    }[net]()
    batch = Batch(jax.random.normal(key, (7, *model.input_shape)), jnp.arange(7) % 3)
    forward, backward = (
        jax.jit(rule.credit)(rule.init(model, key=key), batch, key=key)
        for rule in (ForwardAccumulation(loss=loss), Backprop(loss=loss))
    )
    for credit in (forward, backward):
        assert credit.loss.dtype == jnp.float64
    np.testing.assert_allclose(ravel_pytree(forward.grads)[0], ravel_pytree(backward.grads)[0], rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(forward.loss, backward.loss, rtol=1e-14)
    np.testing.assert_allclose(forward.output, backward.output, rtol=1e-14)


def test_memory_does_not_grow_with_time(key):
    rule = ForwardAccumulation()

    def scratch(steps):
        model = nets.elman(3, 4, 2, steps=steps, key=key)
        batch = Batch(jnp.zeros((5, steps, 3)), jnp.zeros(5, int))
        compiled = jax.jit(rule.credit).lower(rule.init(model, key=key), batch, key=key).compile()
        return compiled.memory_analysis().temp_size_in_bytes - 2 * batch.x.nbytes

    assert scratch(200) <= scratch(10)
