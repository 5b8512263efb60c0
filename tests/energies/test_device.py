import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import pytest

from anyprop.contract import Batch
from anyprop.energies import Device, Hopfield, Resistive, Settled, SimulatedDevice, Sweeps, write_conductances
from anyprop.nets import mlp
from anyprop.rules.equilibrium import EquilibriumPropagation
from anyprop.rules.perturbation import WeightPerturbation


class Bench(Device):
    """Hardware on a bench: NumPy solves a linear circuit of resistors, and nothing can be differentiated."""

    conductances: jax.Array  # of both clamped inputs and of ground, to each output node

    def settle(self, x, start=None, *, nudge=None, relaxation=None, key=None):
        del relaxation, key
        shape = jax.ShapeDtypeStruct((len(x), self.conductances.shape[1]), x.dtype)
        push = jnp.zeros(shape.shape)
        if nudge is not None:
            push = -jax.grad(lambda state: jnp.sum(nudge(state)))(start)

        def circuit(g, x, push):
            voltages = np.hstack([x, np.zeros((len(x), 1))])
            return ((voltages @ g + push) / g.sum(0)).astype(x.dtype)

        state = jax.pure_callback(circuit, shape, self.conductances, x, push)
        still = jnp.zeros(len(x))
        return Settled(state, still.astype(int), still, still == 0)

    def output(self, state):
        return state

    def statistics(self, state, x):
        voltages = jnp.pad(x, ((0, 0), (0, 1)))
        return Bench(0.5 * jnp.mean((voltages[:, :, None] - state[:, None, :]) ** 2, axis=0))


def examples():
    draw = np.random.default_rng(0).normal
    x = jnp.asarray(draw(size=(8, 4)))
    return Batch(x, x[:, :2] - 0.5 * x[:, 2:])


def network(key):
    net = Resistive(4, 10, 2, gain=4.0, relaxation=Sweeps(8), key=key)
    return eqx.tree_at(lambda net: net.conductances, net, [g + 0.02 for g in net.conductances])


RULE = EquilibriumPropagation(0.1, relaxation="sweeps", free_steps=8, nudged_steps=8)


@eqx.filter_jit
def train(rule, model, batch, rate, steps, noise=0.0):
    """The model after so many steps, and its cost before each."""
    optimizer = optax.chain(optax.sgd(rate), write_conductances(0.001, noise=noise))
    learner = rule.init(model, key=jax.random.key(0))
    arrays, static = eqx.partition(learner, eqx.is_array)

    def step(carry, key):
        arrays, state = carry
        learner = eqx.combine(arrays, static)
        credit = rule.credit(learner, batch, key=key)
        updates, state = optimizer.update(credit.grads, state, learner.params)
        learner = learner.apply(updates, credit.memory)
        return (eqx.filter(learner, eqx.is_array), state), credit.loss

    keys = jax.random.split(jax.random.key(1), steps)
    (arrays, _), losses = jax.lax.scan(step, (arrays, optimizer.init(learner.params)), keys)
    return eqx.combine(arrays, static).model, losses


@eqx.filter_jit
def settled(model, x, key=None):
    return model.settle(x, key=key).state


def test_a_device_is_trained_by_what_it_measures_alone(x64, key):
    x = jnp.asarray([[1.0, -1.0], [0.5, 2.0], [-1.5, 0.3]])
    g, wanted = jnp.asarray([[0.4, 1.0], [0.7, 0.2], [0.5, 0.5]]), jnp.asarray([[1.0, 0.2], [0.3, 0.6], [0.4, 0.9]])
    batch = Batch(x, Bench(wanted)(x))
    rule = EquilibriumPropagation(1e-3)
    learner = rule.init(Bench(g), key=key)

    def exact(g):
        output = jnp.pad(x, ((0, 0), (0, 1))) @ g / g.sum(0)
        return jnp.mean(0.5 * jnp.sum((output - batch.y) ** 2, axis=1))

    found = eqx.filter_jit(rule.credit)(learner, batch, key=key).grads[0].conductances
    np.testing.assert_allclose(found, jax.grad(exact)(g), rtol=1e-6, atol=1e-9)
    _, losses = train(rule, Bench(g), batch, 1.0, 200)
    assert losses[-1] < 1e-3 * losses[0]


def test_a_perfect_device_is_its_system_and_measures_in_its_own_state(x64, key):
    net, x, state = network(key), jnp.ones((2, 4)), [jnp.ones((2, 10)), jnp.ones((2, 2))]
    device = SimulatedDevice(net, key=key)
    assert eqx.tree_equal(device.effective(key), net)
    moved = RULE.init(device, key=key).params[0]
    measured, ideal = jax.jit(lambda: (device.statistics(state, x), net.statistics(state, x)))()
    assert jax.tree.structure(measured) == jax.tree.structure(moved)
    assert eqx.tree_equal(measured.system.conductances, ideal.conductances)


def test_a_specimen_keeps_its_mismatch_and_nothing_else(x64, key):
    net = network(key)
    device = SimulatedDevice(net, key=key, mismatch=0.2, parameter_noise=0.1)
    ratio = np.log(device.effective().conductances[0] / net.conductances[0])
    assert 0.12 < ratio.std() < 0.28
    assert eqx.tree_equal(device.effective(), device.effective())
    twin = SimulatedDevice(net, mismatch=0.2, key=jax.random.key(1))
    assert not np.allclose(twin.effective().conductances[0], device.effective().conductances[0])
    drawn = [device.effective(k).conductances[0] for k in jax.random.split(key, 40)]
    spread = np.std(drawn, axis=0) / device.effective().conductances[0]
    assert 0.09 < spread.mean() < 0.11
    first, second = jax.tree.leaves(eqx.filter(device, eqx.is_inexact_array))
    assert eqx.tree_equal([first, second], net.conductances)  # what training moves are the programmed values


def test_programmed_values_are_levels(x64, key):
    net = network(key)
    device = SimulatedDevice(net, key=key, levels=6, least=0.0, most=0.25)
    for g, level in zip(net.conductances, device.effective().conductances, strict=True):
        np.testing.assert_allclose(level, 0.05 * np.round(np.clip(g, 0, 0.25) / 0.05), atol=1e-12)


def test_states_are_read_with_noise_where_there_is_a_key(x64, key):
    x = jnp.ones((2000, 4))
    device = SimulatedDevice(network(key), key=key, state_noise=0.04)
    clean, noisy, again = settled(device, x), settled(device, x, key), settled(device, x, key)
    assert eqx.tree_equal(noisy, again)
    for a, b in zip(clean, noisy, strict=True):
        assert 0.037 < np.std(b - a) < 0.043


def test_training_on_the_device_learns_around_what_deployment_suffers_from(x64, key):
    batch, net = examples(), network(key)
    device = SimulatedDevice(net, mismatch=0.3, parameter_noise=0.002, levels=1024, most=2.0, key=jax.random.key(3))
    ideal, losses = train(RULE, net, batch, 0.03, 800)
    trained, _ = train(RULE, device, batch, 0.03, 800)
    on_ideal, on_device, deployed = (
        float(jnp.mean(RULE.loss(m.output(settled(m, batch.x)), batch.y)))
        for m in (ideal, trained, device.programmed(ideal))
    )
    assert on_ideal < 0.01 * losses[0]
    assert on_device < 0.2 * deployed


def test_weight_perturbation_trains_a_device(x64, key):
    device = SimulatedDevice(network(key), key=key, mismatch=0.2)
    rule = WeightPerturbation(0.002, draws=8, loss="squared-error")
    _, losses = train(rule, device, examples(), 0.005, 200)
    assert losses[-1] < 0.5 * losses[0]


def test_writing_keeps_every_conductance_in_its_range():
    draw = np.random.default_rng(0).normal
    g, updates = (jnp.asarray(draw(size=2000), jnp.float32) for _ in range(2))
    g = jnp.clip(jnp.abs(g), 1e-6, 0.7)
    writer = write_conductances(1e-6, 0.7)
    changes, _ = jax.jit(writer.update)(updates, writer.init(g), g)
    after = g + changes
    assert np.all((after >= np.float32(1e-6)) & (after <= np.float32(0.7)))
    free = (g + updates > 1e-6) & (g + updates < 0.7)
    assert 200 < free.sum() < 1800
    np.testing.assert_allclose(after[free], (g + updates)[free], atol=1e-6)


def test_writing_is_noisy_and_what_was_written_drifts(x64):
    g, updates = jnp.full(4000, 0.5), jnp.full(4000, 0.1)
    writer = write_conductances(noise=0.2, drift=0.01, seed=1)
    first, state = writer.update(updates, writer.init(g), g)
    second, _ = writer.update(updates, state, g)
    np.testing.assert_allclose([first.mean(), first.std()], [0.1 - 0.005, 0.02], rtol=0.05)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.1


def test_what_makes_no_device_is_refused(key):
    net = network(key)
    for name in ("mismatch", "parameter_noise", "state_noise"):
        with pytest.raises(ValueError, match=name):
            SimulatedDevice(net, key=key, **{name: -0.1})
    with pytest.raises(ValueError, match="levels"):
        SimulatedDevice(net, key=key, levels=1)
    with pytest.raises(ValueError, match=r"least=1\.0 must be below most=1\.0"):
        SimulatedDevice(net, key=key, levels=2, least=1.0)
    with pytest.raises(ValueError, match=r"system has parameters of the shapes .*\(4, 9\)"):
        SimulatedDevice(Hopfield(mlp(4, 6, 2, key=key)), key=key).programmed(Hopfield(mlp(4, 9, 2, key=key)))
    with pytest.raises(TypeError, match="pass particles=False"):
        EquilibriumPropagation(particles=True).init(SimulatedDevice(net, key=key), key=key)
    with pytest.raises(ValueError, match=r"least=1\.0"):
        write_conductances(1.0, 0.5)
    with pytest.raises(ValueError, match="call update"):
        write_conductances().update(jnp.ones(2), write_conductances().init(jnp.ones(2)))
    for bad in ({"noise": -1.0}, {"drift": 1.0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            write_conductances(**bad)


def test_a_chain_that_is_not_read_as_an_energy_is_refused(key, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users run without the type checker
    with pytest.raises(TypeError, match=r"system must be an energies\.Energy, not Chain; .*Hopfield"):
        SimulatedDevice(mlp(4, 3, 2, key=key), key=key)
