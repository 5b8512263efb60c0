import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anyprop.contract import Batch
from anyprop.diagnose import gradient_descending_updates
from anyprop.energies import Convergent, FixedPoint, GradientFlow, Hopfield
from anyprop.nets import mlp

SYSTEMS = {
    "discrete time": lambda net: Convergent(net, relaxation=FixedPoint(400)),
    "continuous time": lambda net: Hopfield(net, relaxation=GradientFlow(2500, 0.2)),
}


def setting(key, system):
    net = jax.tree.map(lambda w: 0.7 * w, mlp(4, 6, 5, 3, activation="tanh", output="tanh", key=key))
    return SYSTEMS[system](net), Batch(jax.random.normal(key, (3, 4)), jnp.arange(3))


@pytest.mark.parametrize("system", SYSTEMS)
def test_updates_are_gradients_at_every_step_and_in_every_layer(x64, key, system):
    model, batch = setting(key, system)
    small, large = eqx.filter_jit(
        lambda model: [gradient_descending_updates(model, batch, beta=beta, steps=8) for beta in (1e-4, 2e-4)]
    )(model)
    assert float(small.free.residual.max()) < 1e-8
    few, twice = small.differences(), large.differences()
    assert set(few) == {f"chain.stages[{k}].{part}" for k in range(3) for part in ("weight", "bias")}
    for name, difference in few.items():
        assert 1e-9 < difference < 2e-3
        assert 1.8 < twice[name] / difference < 2.2

    first = small.updates.chain.stages[0].weight
    assert first.shape == (8, 4, 6)
    # An error needs a step for each layer on its way down: until then there is nothing to learn from below.
    np.testing.assert_allclose(first[:2], 0.0, atol=1e-6)
    assert jnp.abs(first[2]).max() > 1e-4


def test_systems_that_do_not_match_are_told_apart(x64, key):
    model, batch = setting(key, "discrete time")
    hurried = eqx.tree_at(lambda m: m.relaxation, model, FixedPoint(3), is_leaf=lambda n: isinstance(n, FixedPoint))
    found = eqx.filter_jit(gradient_descending_updates)(hurried, batch, beta=1e-4, steps=8)
    assert max(found.differences().values()) > 0.05
    assert found.free.residual.max() > 1e-3


def test_bad_arguments_are_refused(key):
    model, batch = setting(key, "discrete time")
    for bad in ({"beta": 0.0}, {"steps": 0}, {"loss": "none such"}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            gradient_descending_updates(model, batch, **bad)
