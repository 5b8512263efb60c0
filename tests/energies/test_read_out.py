import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import anyprop as ap
from anyprop.energies import Convergent, FixedPoint, ReadOut
from anyprop.nets import Activate, Chain, Conv, Dense, Pool, mlp


def system(key, *sizes):
    return Convergent(mlp(*sizes, activation="hard-sigmoid", output="hard-sigmoid", key=key))


def test_the_free_system_does_not_feel_it(key):
    inner = system(key, 4, 6, 5)
    model = ReadOut(inner, Dense(5, 3, key=key))
    x = jax.random.uniform(key, (7, 4))
    for one, other in zip(model.settle(x).state, inner.settle(x).state, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(model(x), inner(x) @ model.readout.weight + model.readout.bias, rtol=1e-6)
    assert (model.input_shape, model.output_shape) == ((4,), (3,))


def test_a_nudge_reaches_the_last_layer_through_it(x64, key):
    model = ReadOut(system(key, 4, 6, 5), Dense(5, 3, key=key))
    x, y, state = jax.random.uniform(key, (7, 4)), jnp.arange(7) % 3, None
    state = model.settle(x).state
    loss = ap.losses.CrossEntropy()
    nudged = model.dynamics(x, lambda s: 0.5 * loss(model.output(s), y)).velocity(state)
    drives = model.dynamics(x).answer(state)[-1]
    error = jax.nn.softmax(model.output(state)) - jax.nn.one_hot(y, 3)
    inside = (drives > 0.01) & (drives < 0.99)
    assert inside.any()
    pushed = np.asarray(nudged[-1] - model.dynamics(x).velocity(state)[-1])
    expected = np.clip(pre(model, state) - 0.5 * error @ model.readout.weight.T, 0, 1) - drives
    np.testing.assert_allclose(pushed, expected, atol=1e-12)


def pre(model, state):
    """What the units of the last layer get from below."""
    last = model.system.chain.stages[-1]
    return state[-2] @ last.weight + last.bias


def test_images_are_flattened(key):
    keys = jax.random.split(key)
    chain = Chain(
        [Conv(1, 3, 3, key=keys[0]), Pool("max", 2), Activate("hard-sigmoid")],
        input_shape=(8, 8, 1),
    )
    shape = Convergent(chain).output_shape
    model = ReadOut(Convergent(chain, relaxation=FixedPoint(5)), Dense(int(np.prod(shape)), 10, key=keys[1]))
    assert model(jnp.ones((2, 8, 8, 1))).shape == (2, 10)


def test_training_moves_the_system_and_the_readout(key):
    inputs, labels = jax.random.uniform(key, (40, 4)), jnp.arange(40) % 3
    inputs = np.asarray(inputs.at[jnp.arange(40), labels].add(2.0))
    data = ap.data.load((inputs, np.asarray(labels), inputs, np.asarray(labels)))
    model = ReadOut(system(key, 4, 6, 5), Dense(5, 3, key=key))
    # All at once, some examples' units end in a cycle, of which `fit` warns.
    rule = ap.EquilibriumPropagation(relaxation="sweeps", loss="cross-entropy", free_steps=20)
    run = ap.fit(rule, model, data, optimizer=optax.adam(0.02), epochs=20, batch_size=10, progress=False)
    first, last = (run.records[i]["test_loss"] for i in (0, -1))
    assert last < 0.5 * first
    before, after = (jax.tree.leaves(eqx.filter(m, eqx.is_array)) for m in (model, run.model))
    assert not any(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_it_says_what_to_pass_instead(key):
    layer = Dense(5, 3, key=key)
    with pytest.raises(TypeError, match="system"):
        ReadOut(mlp(4, 5, key=key), layer)
    with pytest.raises(ValueError, match=r"takes 5 units, but the system has 6 outputs; pass ap.nets.Dense\(6, 3"):
        ReadOut(system(key, 4, 6), layer)
