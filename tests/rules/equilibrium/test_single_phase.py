import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anyprop.contract import Batch, exact_gradient
from anyprop.losses import as_loss
from anyprop.nets import Chain, Dense, Norm, Residual, convnet, mlp
from anyprop.rules.equilibrium import PredictiveCoding, SinglePhase

NETS = {
    "dense": lambda key: mlp(4, 5, 6, 3, activation="tanh", output="sigmoid", key=key),
    "convolutional": lambda key: convnet(input_shape=(6, 6, 1), channels=(2, 3), classes=3, key=key),
    "residual": lambda key: Chain(
        [Dense(4, 5, activation="tanh", key=key), Residual([Dense(5, 5, key=key), Norm(5)]), Dense(5, 3, key=key)]
    ),
    "one layer": lambda key: mlp(4, 3, key=key),
}


@pytest.mark.parametrize("loss", ["squared-error", "cross-entropy"])
@pytest.mark.parametrize("net", NETS)
def test_it_is_backprop(x64, key, net, loss):
    chain = NETS[net](key)
    batch = Batch(jax.random.normal(key, (6, *chain.input_shape)), jnp.arange(6) % 3)
    rule = SinglePhase(loss=loss)
    credit = eqx.filter_jit(rule.credit)(rule.init(chain, key=key), batch, key=key)
    value, output, gradient = eqx.filter_jit(exact_gradient)(as_loss(loss), chain, batch)
    np.testing.assert_allclose(credit.loss, value, rtol=1e-12)
    np.testing.assert_allclose(credit.output, output, rtol=1e-12)
    jax.tree.map(
        lambda got, expected: np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-13),
        credit.grads[0],
        gradient,
    )


def test_units_that_no_error_passes_are_refused(key):
    with pytest.raises(TypeError, match=r"sign or a step.*pass activation='tanh'"):
        SinglePhase().init(mlp(4, 5, 3, activation="sign", key=key), key=key)


@pytest.mark.parametrize("output", ["clamped", "nudged"])
def test_predictive_coding_tends_to_it(x64, key, output):
    chain = NETS["dense"](key)
    batch = Batch(jax.random.normal(key, (6, 4)), jnp.arange(6) % 3)
    weak = PredictiveCoding(1e-6, output, steps=500, step_size=0.2)
    limit = SinglePhase().credit(SinglePhase().init(chain, key=key), batch, key=key)
    credit = eqx.filter_jit(weak.credit)(weak.init(chain, key=key), batch, key=key)
    jax.tree.map(
        lambda got, expected: np.testing.assert_allclose(got, expected, atol=1e-5 * jnp.abs(expected).max()),
        credit.grads[0].chain,
        limit.grads[0],
    )
