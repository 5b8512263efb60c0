import jax
import jax.numpy as jnp
import numpy as np

from anyprop.nets import mlp
from anyprop.reproductions._ep_mnist import SCELLIER
from anyprop.reproductions._initialized_ep import FORWARD_RATE, optimizer
from anyprop.rules.equilibrium import InitializedEquilibriumPropagation


def test_each_layer_of_the_network_has_its_rate_and_the_forward_pass_another(key):
    params = InitializedEquilibriumPropagation().init(mlp(4, 5, 3, **SCELLIER, key=key), key=key).params
    descent = optimizer((0.1, 0.05))
    moves, _ = descent.update(jax.tree.map(jnp.ones_like, params), descent.init(params), params)
    for site, rate in zip(moves[0].network.chain.stages, (0.1, 0.05), strict=True):
        np.testing.assert_allclose(site.weight, -rate)
        np.testing.assert_allclose(site.bias, -rate)
    for site in moves[0].forward.stages:
        np.testing.assert_allclose(site.weight, -FORWARD_RATE)
