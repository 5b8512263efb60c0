import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from anyprop.contract import Batch
from anyprop.energies import GradientFlow, Resistive, Sweeps
from anyprop.rules.equilibrium import EquilibriumPropagation

SIZES = 6, 8, 5, 3


AMPLIFIED = {"amplification": 2.0, "paired": True}


def network(gain=1.0, **options):
    """A network all of whose nodes are well connected, the biases too."""
    net = Resistive(*SIZES, gain=gain, **options, relaxation=Sweeps(200, 1e-14), key=jax.random.key(0))
    draw = np.random.default_rng(0).uniform
    return eqx.tree_at(
        lambda net: net.conductances, net, [jnp.asarray(draw(0.1, 1.0, g.shape)) for g in net.conductances]
    )


def examples(count=5):
    return Batch(jnp.asarray(np.random.default_rng(1).normal(size=(count, 6))), jnp.arange(count) % 3)


@eqx.filter_jit
def settle(net, x, nudge=None, way=None):
    return net.settle(x, nudge=nudge, relaxation=way)


def circuit(net, state, x):
    """Every voltage of the circuit, first example only, and one symmetric matrix of all its conductances."""
    sources = [net.gain * x[0], -net.gain * x[0]]
    layers = [np.concatenate(sources), *(np.asarray(v[0]) for v in state)]
    starts = np.cumsum([0, *(len(layer) for layer in layers)])
    voltages = np.concatenate([*layers, [1.0, -1.0]])
    g = np.zeros((len(voltages), len(voltages)))
    for k, matrix in enumerate(net.conductances):
        below, above = slice(starts[k], starts[k + 1]), slice(starts[k + 1], starts[k + 2])
        g[below, above], g[-2:, above] = matrix[:-2], matrix[-2:]
    return voltages, g + g.T


def test_currents_balance_at_every_node_that_its_diode_leaves_free(x64):
    net, x = network(gain=4.0), examples().x
    ends = settle(net, x)
    assert ends.converged.all()
    voltages, g = circuit(net, ends.state, x)
    inflow = (g * (voltages[None, :] - voltages[:, None])).sum(1)[12:-2]
    nodes, held = voltages[12:-2], np.zeros(16)
    held[:4], held[4:8], held[8:10], held[10:13] = 1, -1, 1, -1  # the first half of a layer above 0, the rest below
    assert np.all(held * nodes >= 0)
    free = (held == 0) | (np.abs(nodes) > 1e-12)
    assert 3 < free.sum() < 16
    np.testing.assert_allclose(inflow[free], 0.0, atol=1e-12)
    assert np.all(held[~free] * inflow[~free] <= 0)  # what a diode takes up would push the node out of its range


def test_amplifiers_multiply_voltages_on_the_way_up_and_divide_currents_on_the_way_down(x64):
    net, x = network(gain=2.0, **AMPLIFIED), examples().x
    ends = settle(net, x)
    assert ends.converged.all()
    h1, h2, o = map(np.asarray, ends.state)
    g1, g2, g3 = map(np.asarray, net.conductances)
    bias = np.tile([1.0, -1.0], (5, 1))
    below = [np.hstack([2 * x, -2 * x, bias]), np.hstack([2 * h1, bias]), np.hstack([2 * h2, bias])]
    # The current through every resistor towards the layer above.
    currents = [g * (v[:, :, None] - w[:, None, :]) for g, v, w in zip((g1, g2, g3), below, (h1, h2, o), strict=True)]
    drawn = [current[:, :-2].sum(2) / 2 for current in currents[1:]]
    for v, inflow in zip((h1, h2), (c.sum(1) - d for c, d in zip(currents, drawn, strict=False)), strict=True):
        free = np.abs(v) > 1e-12
        assert 3 < free.sum() < v.size
        np.testing.assert_allclose(inflow[free], 0.0, atol=1e-11)
    np.testing.assert_allclose(currents[-1].sum(1), 0.0, atol=1e-11)
    np.testing.assert_array_equal(net.output(ends.state), o[:, :3] - o[:, 3:])
    assert net.output_shape == (3,)


def test_the_energy_is_half_the_power_and_its_slope_half_a_squared_voltage(x64):
    net, x = network(gain=2.0), examples(count=1).x
    state = [jnp.asarray(np.random.default_rng(2).normal(size=(1, n))) for n in SIZES[1:]]
    voltages, g = circuit(net, state, x)
    squares = (voltages[:, None] - voltages[None, :]) ** 2
    energy, slopes = jax.jit(lambda: (net.energy(state, x), net.statistics(state, x)))()
    np.testing.assert_allclose(energy, [0.25 * (g * squares).sum()], rtol=1e-12)
    nodes = [slice(0, 12), slice(12, 20), slice(20, 25), slice(25, 28)]
    for below, above, slope in zip(nodes, nodes[1:], slopes.conductances, strict=False):
        np.testing.assert_allclose(slope[:-2], 0.5 * squares[below, above], rtol=1e-12)
        np.testing.assert_allclose(slope[-2:], 0.5 * squares[-2:, above], rtol=1e-12)


def test_sweeps_and_gradient_flow_agree_and_no_sweep_raises_the_power(x64):
    net, x = network(gain=4.0), examples().x
    for a, b in zip(settle(net, x).state, settle(net, x, way=GradientFlow(400)).state, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)

    def sweep(state, _):
        return net.settle(x, state, relaxation=Sweeps(1)).state, net.energy(state, x)

    _, powers = jax.lax.scan(sweep, [v + 1.0 for v in net.start(x)], length=12)
    assert np.all(np.diff(powers, axis=0) <= 1e-12)
    assert np.all(powers[-1] < powers[0] - 0.01)


@pytest.mark.parametrize("options", [{}, AMPLIFIED], ids=["plain", "amplified"])
def test_centred_equilibrium_propagation_is_the_gradient_that_finite_differences_measure(x64, key, options):
    batch = examples()
    rule = EquilibriumPropagation(1e-3, relaxation="sweeps", free_steps=200, nudged_steps=200, tolerance=1e-14)
    learner = rule.init(network(**options), key=key)
    flat, unflatten = ravel_pytree(learner.params)

    def cost(change):
        model, _ = unflatten(flat + change)
        return jnp.mean(rule.loss(eqx.combine(model, learner.model)(batch.x), batch.y))

    steps = 1e-5 * jnp.concatenate([jnp.eye(len(flat)), -jnp.eye(len(flat))])
    up, down = jnp.split(jax.jit(jax.vmap(cost))(steps), 2)
    measured = (up - down) / 2e-5
    found, _ = ravel_pytree(eqx.filter_jit(rule.credit)(learner, batch, key=key).grads)
    assert jnp.linalg.norm(found - measured) / jnp.linalg.norm(measured) <= 1e-5


def test_nudged_sweeps_are_the_published_ones(x64):
    net, batch = network(gain=2.0), examples()
    (g1, g2, g3), x, y = map(np.asarray, net.conductances), np.asarray(batch.x), np.eye(3)[np.asarray(batch.y)]
    bias = np.tile([1.0, -1.0], (5, 1))

    def diodes(v):
        half = v.shape[1] // 2
        return np.hstack([np.maximum(v[:, :half], 0), np.minimum(v[:, half:], 0)])

    @jax.jit
    def nudged(beta):
        def pull(state):
            return 0.5 * beta * jnp.sum((state[-1] - y) ** 2, axis=1)

        return net.settle(batch.x, nudge=pull, relaxation=Sweeps(4)).state

    for beta in (0.7, -0.3):
        h1, h2, o = np.zeros((5, 8)), np.zeros((5, 5)), np.zeros((5, 3))
        for _ in range(4):
            h1 = diodes((np.hstack([2 * x, -2 * x, bias]) @ g1 + h2 @ g2[:-2].T) / (g1.sum(0) + g2[:-2].sum(1)))
            h2 = diodes((np.hstack([h1, bias]) @ g2 + o @ g3[:-2].T) / (g2.sum(0) + g3[:-2].sum(1)))
            o = (np.hstack([h2, bias]) @ g3 + beta * y) / (g3.sum(0) + beta)

        for found, expected in zip(nudged(jnp.asarray(beta)), (h1, h2, o), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_nudge_of_another_form_ends_where_its_currents_balance(x64):
    net, batch = network(gain=4.0), examples()

    def pull(state):
        return -0.5 * jnp.take_along_axis(jax.nn.log_softmax(state[-1]), batch.y[:, None], axis=1)[:, 0]

    state = settle(net, batch.x, pull).state
    slope = jax.jit(jax.grad(lambda state: jnp.sum(net.energy(state, batch.x) + pull(state))))(state)
    np.testing.assert_allclose(slope[-1], 0.0, atol=1e-10)


def test_networks_start_with_half_of_their_resistors_and_without_biases(key):
    net = Resistive(20, 30, 4, key=key)
    assert (net.input_shape, net.output_shape) == ((20,), (4,))
    assert [g.shape for g in net.conductances] == [(42, 30), (32, 4)]
    first = np.asarray(net.conductances[0])
    assert 0.45 < np.mean(first[:-2] > 0) < 0.55
    assert 0.9 * 40**-0.5 < first.max() <= 40**-0.5
    assert not first[-2:].any()


def test_nodes_that_nothing_is_connected_to_stay_where_they_are(x64):
    net = eqx.tree_at(lambda net: net.conductances, network(gain=4.0), replace_fn=lambda gs: [0 * g for g in gs])
    np.testing.assert_array_equal(settle(net, examples().x).state[-1], jnp.zeros((5, 3)))


@pytest.mark.parametrize(
    ("sizes", "options", "match"),
    [
        ((5,), {}, "at least the inputs and the outputs"),
        ((5, 0, 2), {}, "sizes"),
        ((5, 2), {"gain": 0.0}, "gain"),
        ((5, 2), {"amplification": -1.0}, "amplification"),
    ],
)
def test_sizes_and_gains_out_of_range_are_refused(sizes, options, match, key):
    with pytest.raises(ValueError, match=match):
        Resistive(*sizes, **options, key=key)
