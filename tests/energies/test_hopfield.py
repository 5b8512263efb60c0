import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anyprop.contract import Batch
from anyprop.energies import GradientFlow, Hopfield
from anyprop.nets import Activate, Chain, Conv, Dense, Flatten, Norm, Pool, Residual, mlp
from anyprop.rules.equilibrium import EquilibriumPropagation


def slope(model, state, x):
    return jax.grad(lambda s: jnp.sum(model.energy(s, x)))(state)


def states(key, sizes, batch=5):
    return [jax.random.uniform(k, (batch, n)) for n, k in zip(sizes, jax.random.split(key, len(sizes)), strict=True)]


def test_the_force_is_the_published_drift_up_to_the_ends_of_the_range(x64, key):
    net = mlp(4, 6, 5, 3, activation="hard-sigmoid", output="hard-sigmoid", key=key)
    x, s = jax.random.uniform(key, (5, 4)), states(key, (6, 5, 3))
    s[0], s[1], s[2] = s[0].at[0].set(0.0), s[1].at[1].set(1.0), s[2].at[2].set(0.0)
    weights = [np.asarray(site.weight) for site in net.stages]
    below = [x, *s[:-1]]
    for k, force in enumerate(slope(Hopfield(net), s, x)):
        drive = below[k] @ weights[k] + (s[k + 1] @ weights[k + 1].T if k < 2 else 0.0)
        np.testing.assert_allclose(-force, drive - s[k], rtol=1e-12)


def test_the_force_on_smooth_units_has_their_derivative(x64, key):
    net = mlp(4, 6, 3, activation="tanh", output="sigmoid", key=key)
    x, (s1, s2) = jax.random.normal(key, (5, 4)), states(key, (6, 3))
    first, second = (np.asarray(site.weight) for site in net.stages)
    r1, r2 = np.tanh(s1), 1 / (1 + np.exp(-s2))
    by_hand = [(1 - r1**2) * (x @ first + r2 @ second.T) - s1, r2 * (1 - r2) * (r1 @ second) - s2]
    for force, drift in zip(slope(Hopfield(net), [s1, s2], x), by_hand, strict=True):
        np.testing.assert_allclose(-force, drift, rtol=1e-12)


def test_biases_and_clamped_input_enter_the_energy_once(x64, key):
    bias = jnp.asarray([0.3, -2.0, 4.0])
    layer = eqx.tree_at(lambda chain: chain.stages[0].bias, mlp(4, 3, output="hard-sigmoid", key=key), bias)
    x, s = jax.random.uniform(key, (5, 4)), states(key, (3,))
    expected = 0.5 * (s[0] ** 2).sum(1) - (s[0] * (x @ layer.stages[0].weight + bias)).sum(1)
    np.testing.assert_allclose(Hopfield(layer).energy(s, x), expected, rtol=1e-12)


def test_one_layer_settles_to_what_it_computes_forwards(x64, key):
    for output in ("hard-sigmoid", "relu", "identity"):
        net = mlp(4, 3, output=output, key=key)
        x = jax.random.normal(key, (5, 4))
        np.testing.assert_allclose(Hopfield(net)(x), net(x), atol=1e-12)


def test_a_unit_at_the_end_of_its_range_leaves_it_when_driven_inwards(key):
    net = eqx.tree_at(lambda chain: chain.stages[0].weight, mlp(2, 2, output="hard-sigmoid", key=key), jnp.eye(2))
    ends = Hopfield(net, relaxation=GradientFlow(steps=1)).settle(
        jnp.asarray([[0.4, 0.6]]), [jnp.asarray([[0.0, 1.0]])]
    )
    np.testing.assert_allclose(ends.state[0], [[0.2, 0.8]], rtol=1e-6)


def test_half_hard_sigmoids_stay_where_the_energy_is_lowest_and_pass_errors_on(x64, key):
    units = {"activation": "half-hard-sigmoid", "output": "half-hard-sigmoid"}
    model = Hopfield(mlp(6, 8, 7, 3, **units, key=key), relaxation=GradientFlow(200))
    x = jax.random.normal(key, (5, 6))
    s1, s2, s3 = model.settle(x).state
    for s in (s1, s2, s3):
        assert np.all((s >= 0) & (s <= 2))
        assert np.any(s > 0)
    w1, w2, w3 = (np.asarray(layer.weight) for layer in model.chain.stages)
    drives = [x @ w1 + s2 / 2 @ w2.T, s1 / 2 @ w2 + s3 / 2 @ w3.T, s2 / 2 @ w3]
    for s, drive in zip((s1, s2, s3), drives, strict=True):
        np.testing.assert_allclose(s, np.clip(drive / 2, 0, 2), atol=1e-9)
    rule = EquilibriumPropagation(free_steps=50)
    grads, _ = eqx.filter_jit(rule.credit)(rule.init(model, key=key), Batch(x, jnp.arange(5) % 3), key=key).grads
    assert all(np.any(layer.weight != 0) for layer in grads.chain.stages)


def test_convolutions_with_pooling_settle_with_their_transpose_as_feedback(x64, key):
    keys = jax.random.split(key, 3)
    conv = Conv(1, 2, 3, activation="hard-sigmoid", key=keys[0])
    between, dense = [Pool("mean", 2), Flatten()], Dense(8, 3, activation="hard-sigmoid", key=keys[1])
    model = Hopfield(Chain([conv, *between, dense], input_shape=(4, 4, 1)))
    x = jax.random.uniform(keys[2], (5, 4, 4, 1))
    state = model.start(x)
    assert [s.shape for s in state] == [(5, 4, 4, 2), (5, 3)]
    s1, s2 = (0.3 + 0.1 * jax.random.uniform(keys[2], s.shape) for s in state)

    def up(rate):
        return dense.drive(Flatten()(Pool("mean", 2)(rate)))

    drive, down = jax.vjp(up, s1)
    by_hand = [s1 - conv.drive(x) - down(s2)[0], s2 - drive]
    for force, expected in zip(slope(model, [s1, s2], x), by_hand, strict=True):
        np.testing.assert_allclose(force, expected, rtol=1e-10)
    assert model(x).shape == (5, 3)


@pytest.mark.parametrize(
    ("last", "match"),
    [
        ([Norm(3), Dense(3, 2, key=jax.random.key(0))], r"Norm \(stages\[1\]\)"),
        ([Activate("tanh"), Activate("tanh")], r"no affine layer leads to \(stages\[2\]\)"),
        ([Dense(3, 2, activation="tanh", key=jax.random.key(0)), Activate("tanh")], r"stages\[1\] has its own besides"),
        ([Flatten()], "ends with a Flatten"),
        ([Dense(3, 2, activation="sign", key=jax.random.key(0))], r"layer 2, whose derivative is zero"),
    ],
)
def test_stages_without_a_place_in_the_energy_are_refused(last, match, key):
    with pytest.raises(TypeError, match=match):
        Hopfield(Chain([Dense(4, 3, key=key), *last]))


def test_a_residual_block_adds_its_shortcut_to_the_drive_of_its_last_layer(x64, key):
    def dense(*sizes, units="identity"):
        return Dense(*sizes, activation=units, key=key)

    body, skip = (dense(5, 4, units="hard-sigmoid"), dense(4, 3)), dense(5, 3)
    block = Residual(body, shortcut=(skip,), activation="hard-sigmoid")
    chain = Chain([dense(2, 5, units="hard-sigmoid"), block])
    model = Hopfield(chain)
    x = jax.random.normal(key, (6, 2))
    s1, s2, s3 = (jax.random.uniform(jax.random.key(n), (6, n)) for n in (5, 4, 3))
    drives = [chain.stages[0].drive(x), body[0].drive(s1), body[1].drive(s2) + skip.drive(s1)]
    expected = sum(0.5 * jnp.sum(s * s, 1) - jnp.sum(s * a, 1) for s, a in zip((s1, s2, s3), drives, strict=True))
    np.testing.assert_allclose(model.energy([s1, s2, s3], x), expected, rtol=1e-12)
    assert [s.shape for s in model.start(x)] == [(6, 5), (6, 4), (6, 3)]
    with pytest.raises(TypeError, match=r"stages\[1\]"):
        Hopfield(Chain([chain.stages[0], Residual(body[:1], activation="hard-sigmoid", shortcut=(dense(5, 4),))]))


def test_pooling_before_an_activation_pools_the_drive(x64, key):
    conv = Conv(1, 2, 3, padding="VALID", key=key)
    chain = Chain([conv, Pool("max", 2), Activate("hard-sigmoid")], input_shape=(6, 6, 1))
    model = Hopfield(chain)
    x = jax.random.normal(key, (5, 6, 6, 1))
    (start,) = model.start(x)
    assert start.shape == (5, 2, 2, 2)
    np.testing.assert_allclose(model.settle(x).state[0], jnp.clip(Pool("max", 2)(conv.drive(x)), 0, 1), atol=1e-12)
