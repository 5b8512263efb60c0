import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anyprop.contract import Batch
from anyprop.diagnose import early_inference
from anyprop.energies import Energy, GradientFlow, Hopfield
from anyprop.nets import Chain, Dense, Residual, mlp
from anyprop.rules.equilibrium import EarlyInference


def net(key, output="tanh"):
    chain = mlp(6, 8, 7, 5, 3, activation="tanh", output=output, key=key)
    return jax.tree.map(lambda w: w + 0.2 if w.ndim == 1 else w, chain)


def examples(key, count=5):
    return Batch(jax.random.normal(key, (count, 6)), jnp.arange(count) % 3)


NAMES = ("1 Dense", "2 Dense", "3 Dense", "4 Dense")


@eqx.filter_jit
def measure(chain, batch, step_size):
    model = Hopfield(chain, relaxation=GradientFlow(400, 0.5))
    return early_inference(model, batch, beta=1e-5, step_size=step_size), model.settle(batch.x).state


@eqx.filter_jit
def credit(rule, learner, batch):
    return rule.credit(learner, batch, key=jax.random.key(0))


def test_first_moves_are_the_errors_of_backprop(x64, key):
    chain, batch = net(key), examples(key)
    found, state = measure(chain, batch, 0.1)
    assert found.residual < 1e-13
    slopes = [1 - np.tanh(s) ** 2 for s in state]
    error = slopes[3] * (np.eye(3)[np.asarray(batch.y)] - np.tanh(state[3]))
    for k in (3, 2, 1, 0):
        np.testing.assert_allclose(found.backprop[NAMES[k]], error, rtol=1e-9)
        assert found.cosine[NAMES[k]] > 1 - 1e-6
        np.testing.assert_allclose(found.ratio[NAMES[k]], 1, rtol=1e-4)
        if k > 0:
            error = slopes[k - 1] * ((slopes[k] * error) @ np.asarray(chain.stages[k].weight).T)


def test_units_pressed_against_their_range_have_no_error(x64, key):
    """Hard sigmoids inside of their range, but for one."""
    chain = mlp(6, 8, 7, 5, 3, activation="hard-sigmoid", output="hard-sigmoid", key=key)
    chain = jax.tree.map(lambda w: w + 0.5 if w.ndim == 1 else 0.1 * w, chain)
    chain = eqx.tree_at(lambda c: c.stages[1].bias, chain, chain.stages[1].bias.at[0].set(-1.0))
    found, _ = measure(chain, examples(key), 0.5)
    for errors in (found.moved, found.backprop):
        assert np.all(errors["2 Dense"][:, 0] == 0)
        assert np.all(errors["2 Dense"][:, 1:] != 0)
    for name in NAMES:
        assert found.cosine[name] > 1 - 1e-6
        np.testing.assert_allclose(found.ratio[name], 1, rtol=1e-4)


@pytest.mark.parametrize(
    ("network", "relaxation", "loss"),
    [
        ("hopfield", "gradient-flow", "squared-error"),
        ("convergent", "sweeps", "cross-entropy"),
    ],
)
def test_the_update_is_backprop_through_the_maps_at_rest(x64, key, network, relaxation, loss):
    """The layers' maps with their state's own slope and what comes from above held fixed."""
    batch = examples(key)
    rule = EarlyInference(1e-5, free_steps=300, network=network, relaxation=relaxation, loss=loss)
    learner = rule.init(net(key, "identity" if loss == "cross-entropy" else "tanh"), key=key)
    found = credit(rule, learner, batch)
    rest = learner.model.settle(batch.x).state
    stages = learner.model.chain.stages

    def cost(parameters):
        rate = batch.x
        for k, (w, b) in enumerate(parameters):
            f, s = stages[k].activation, rest[k]
            drive = rate @ w + b
            if k < 3:
                top = rest[k + 1] if network == "convergent" else stages[k + 1].activation(rest[k + 1])
                drive += top @ stages[k + 1].weight.T
            if network == "convergent":
                rate = f(drive)
            else:
                slope = jax.vmap(jax.vmap(jax.grad(f)))(s)
                rate = f(slope * drive)
        return jnp.mean(rule.loss(rate, batch.y))

    gradient = jax.jit(jax.grad(cost))([(stage.weight, stage.bias) for stage in stages])
    for site, (weight, bias) in zip(found.grads[0].chain.stages, gradient, strict=True):
        np.testing.assert_allclose(site.weight, weight, rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(site.bias, bias, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("bad", [{"beta": 0.0}, {"beta": -1.0}, {"free_steps": 0}, {"step_size": 0.0}])
def test_numbers_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        EarlyInference(**bad)


class Well(Energy):
    """An energy without layers."""

    w: jax.Array
    relaxation: GradientFlow = eqx.field(default_factory=GradientFlow)

    def energy(self, state, x):
        return 0.5 * jnp.sum((state - x @ self.w) ** 2, axis=1)

    def start(self, x):
        return jnp.zeros((len(x), 2))

    def output(self, state):
        return state


def residual(key):
    return Chain([Residual([Dense(4, 4, key=key)], activation="tanh"), Dense(4, 3, key=key)], input_shape=(4,))


def test_models_without_an_order_of_layers_are_refused(key):
    with pytest.raises(TypeError, match="model is a Well"):
        EarlyInference().init(Well(jnp.ones((3, 2))), key=key)
    with pytest.raises(TypeError, match="residual blocks"):
        EarlyInference().init(residual(key), key=key)
    with pytest.raises(TypeError, match="without residual blocks"):
        early_inference(Hopfield(residual(key)), Batch(jnp.ones((2, 4)), jnp.zeros(2, int)))
    with pytest.raises(ValueError, match="beta"):
        early_inference(Hopfield(net(key)), examples(key), beta=0.0)
