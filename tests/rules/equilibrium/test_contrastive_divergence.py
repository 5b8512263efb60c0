import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import anyprop as ap
from anyprop.energies import Boltzmann, GeneralBoltzmann, log_partition
from anyprop.rules.equilibrium import ContrastiveDivergence

DATA = np.array([[1.0, 1, 0, 0], [1, 1, 1, 0], [0, 0, 1, 1], [0, 1, 1, 1]])


def restricted(key, *, labels=False):
    """A machine of 4 visible and 3 hidden units, with biases and weights that matter."""
    sizes = (4, 3, 2) if labels else (4, 3)
    output = "identity" if labels else "sigmoid"
    machine = Boltzmann(ap.nets.mlp(*sizes, activation="sigmoid", output=output, key=key), labels=labels)
    leaves, treedef = jax.tree.flatten(machine)
    keys = jax.random.split(key, len(leaves))
    return treedef.unflatten([0.7 * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)])


def batch(machine):
    x = jnp.asarray(DATA)
    return ap.Batch(x, jnp.array([0, 0, 1, 1]) if machine.labels else x)


def rule_for(machine, **options):
    return ContrastiveDivergence(loss="cross-entropy" if machine.labels else "binary-cross-entropy", **options)


def transition(machine):
    """All visible states, and the matrix p(v'|v) of one step of Gibbs sampling, by sums over all hidden states."""
    v, h = (jnp.asarray(units.states(size)) for units, size in zip(machine.units, machine.sizes, strict=True))

    def pairs(v, h):
        return -jax.vmap(lambda v: jax.vmap(lambda h: machine.energy([v[None], h[None]])[0])(h))(v)

    logs = pairs(v, h)
    up, down = jax.nn.softmax(logs, axis=1), jax.nn.softmax(logs, axis=0)
    return v, up @ down.T


@pytest.mark.parametrize("steps", [1, 3])
def test_the_mean_update_is_the_difference_of_two_expectations(x64, steps):
    """<dE/dtheta> at the data less that at p_k(v), both summed over all states, for CD-k."""
    machine = restricted(jax.random.key(0))
    data, rule = batch(machine), rule_for(machine, steps=steps)
    learner = rule.init(machine, key=jax.random.key(1))
    v, step = eqx.filter_jit(transition)(machine)
    start = np.array([np.all(np.asarray(v) == row, axis=1) for row in DATA]).mean(0)
    ended = start @ np.linalg.matrix_power(np.asarray(step), steps)

    @eqx.filter_jit
    def measure(machine, keys):
        def free(machine, p):
            return p @ machine.free_energy([v, jnp.zeros((len(v), 3))])  # its gradient is <dE/dtheta> over h

        want = eqx.filter_grad(lambda m: free(m, start) - free(m, ended))(machine)
        return want, jax.vmap(lambda key: rule.credit(learner, data, key=key).grads[0])(keys)

    want, draws = measure(machine, jax.random.split(jax.random.key(2), 1000))
    for expected, drawn in zip(jax.tree.leaves(want), jax.tree.leaves(draws), strict=True):
        error = jnp.std(drawn, axis=0) / np.sqrt(len(drawn))
        assert np.all(np.abs(jnp.mean(drawn, axis=0) - expected) < 4 * error)
        assert np.all(error < 0.03)


def test_with_many_steps_it_is_the_gradient_of_the_likelihood(x64):
    """Of x and the label together, whose machine has both among its visible units."""
    machine = restricted(jax.random.key(0), labels=True)
    data, rule = batch(machine), rule_for(machine, steps=50)
    learner = rule.init(machine, key=jax.random.key(1))

    @eqx.filter_jit
    def measure(machine, keys):
        def cost(machine):
            return log_partition(machine)[0] - jnp.mean(log_partition(machine, data.x, data.y))

        return eqx.filter_grad(cost)(machine), jax.vmap(lambda key: rule.credit(learner, data, key=key).grads[0])(keys)

    want, draws = measure(machine, jax.random.split(jax.random.key(2), 1000))
    for expected, drawn in zip(jax.tree.leaves(want), jax.tree.leaves(draws), strict=True):
        error = jnp.std(drawn, axis=0) / np.sqrt(len(drawn))
        assert np.all(np.abs(jnp.mean(drawn, axis=0) - expected) < 4 * error)


def train(rule, machine, data, steps, rate):
    """The machine after so many updates, the mean of its arrays over the last half of them."""
    arrays, static = eqx.partition(rule.init(machine, key=jax.random.key(3)), eqx.is_array)
    optimizer = optax.sgd(rate)

    def step(arrays, key):
        learner = eqx.combine(arrays, static)
        credit = rule.credit(learner, data, key=key)
        updates, _ = optimizer.update(credit.grads, optimizer.init(learner.params))
        arrays = eqx.filter(learner.apply(updates, credit.memory), eqx.is_array)
        return arrays, arrays.model

    keys = jax.random.split(jax.random.key(4), steps)
    seen = jax.jit(lambda arrays: jax.lax.scan(step, arrays, keys)[1])(arrays)
    return eqx.combine(jax.tree.map(lambda leaf: leaf[steps // 2 :].mean(0), seen), static.model)


def test_persistent_chains_come_to_rest_at_the_maximum_of_the_likelihood(x64):
    key = jax.random.key(0)
    machine = restricted(key)
    data = batch(machine)

    def cost(machine):
        return log_partition(machine)[0] - jnp.mean(log_partition(machine, data.x))

    slope = eqx.filter_jit(eqx.filter_value_and_grad(cost))
    first, _ = slope(machine)
    machine = train(rule_for(machine, persistent=True, particles=200), machine, data, 3000, 0.1)
    last, gradient = slope(machine)
    assert last < first
    assert last < np.log(4) + 0.25  # the entropy of four equally likely patterns is log 4
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradient)) < 0.05


def test_persistent_chains_go_on_where_they_ended(key):
    machine = restricted(key)
    rule = rule_for(machine, persistent=True, particles=7)
    learner = rule.init(machine, key=key)
    assert [s.shape for s in learner.memory] == [(7, 4), (7, 3)]
    x = jnp.asarray(DATA, jnp.float32)
    credit = eqx.filter_jit(rule.credit)(learner, ap.Batch(x, x), key=key)
    assert [s.shape for s in credit.memory] == [(7, 4), (7, 3)]
    assert not np.array_equal(credit.memory[0], learner.memory[0])
    assert rule_for(machine).init(machine, key=key).memory is None


def test_other_models_are_refused(key):
    rule = ContrastiveDivergence()
    with pytest.raises(TypeError, match="one hidden layer"):
        rule.init(ap.nets.mlp(4, 3, 3, 2, activation="sigmoid", key=key), key=key)
    with pytest.raises(TypeError, match="BoltzmannLearning"):
        rule.init(GeneralBoltzmann(3, 2, 2, key=key), key=key)
    with pytest.raises(TypeError, match="Boltzmann machine"):
        rule.init(eqx.nn.Linear(3, 2, key=key), key=key)
    with pytest.raises(ValueError, match="binary-cross-entropy"):
        rule.init(restricted(key), key=key)
    for argument in ("steps", "particles"):
        with pytest.raises(ValueError, match=argument):
            ContrastiveDivergence(**{argument: 0})


def test_data_out_of_the_range_of_the_visible_units_are_refused_before_training(key):
    x, y = np.asarray([[0.0, 1.0, 0.5, 2.0], [0.0, 0.0, 0.2, 0.4]], np.float32), np.arange(2)
    wild, tame, centred = (ap.data.load({"train": (values, y)}) for values in (x, x / 2, x / 2 - 0.5))
    standardised = ap.data.load({"train": (x / 2, y)}, standardise=True)
    binary, spins = (ap.nets.mlp(4, 3, 2, activation=units, key=key) for units in ("sigmoid", "tanh"))
    for rule in (ContrastiveDivergence(), ap.DeepBoltzmann(), ap.BoltzmannLearning()):
        for data, net in ((wild, binary), (standardised, binary), (centred, binary), (wild, spins)):
            with pytest.raises(
                ValueError, match=r"data has inputs from .* visible units .* pass|load it without stand"
            ):
                ap.fit(rule, net, data, batch_size=2, progress=False)
        for data, net in ((tame, binary), (centred, spins)):
            rule.init(net, data=ap.training.describe(data), key=key)
    machine = restricted(key)
    for answers in (
        ContrastiveDivergence(loss="binary-cross-entropy"),
        ap.BoltzmannLearning(objective="joint", loss="squared-error"),
    ):
        with pytest.raises(ValueError, match=r"y is labels, but the machine has no label .* with reconstruct=True"):
            ap.fit(answers, machine, tame, batch_size=2, progress=False)
        itself = ap.data.load({"train": (x / 2, y)}, reconstruct=True)
        answers.init(machine, data=ap.training.describe(itself), key=key)
    told = ap.training.describe(centred)
    assert (told.low, told.high) == (-0.5, 0.5)
    np.testing.assert_allclose(ap.training.describe(standardised).high, 1.0, rtol=1e-6)  # of two examples
