"""Boltzmann machines against the enumeration of all their states."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2

import anyprop as ap
from anyprop.energies import Boltzmann, GeneralBoltzmann, log_partition
from anyprop.energies._relaxation import GradientFlow, Relaxation, Sweeps


def strong(model, key=None):
    """A model with all of its arrays drawn anew, biases too, of standard deviation 1."""
    leaves, treedef = jax.tree.flatten(model)
    keys = jax.random.split(jax.random.key(1) if key is None else key, len(leaves))
    return treedef.unflatten([jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)])


def layered(*sizes, units="sigmoid", labels=False):
    output = "identity" if labels else units
    return strong(Boltzmann(ap.nets.mlp(*sizes, activation=units, output=output, key=jax.random.key(0)), labels=labels))


MACHINES = {
    "restricted": lambda: layered(4, 3),
    "with a label": lambda: layered(3, 4, 3, labels=True),
    "deep": lambda: layered(3, 2, 3),
    "deep with a label": lambda: layered(3, 2, 2, 3, labels=True),
    "spins": lambda: layered(3, 2, 2, units="tanh"),
    "general": lambda: strong(GeneralBoltzmann(3, 2, 3, key=jax.random.key(0))),
    "all visible spins": lambda: strong(GeneralBoltzmann(4, 0, kind="spin", key=jax.random.key(0))),
}


def every_state(machine):
    """All states of a machine, by a loop that shares nothing with the code under test."""
    rows = [np.zeros((1, 0))]
    for units, size in zip(machine.units, machine.sizes, strict=True):
        kind = type(units).__name__
        low = -1.0 if kind == "Spin" else 0.0
        patterns = [[low if n >> i & 1 else 1.0 for i in range(size)] for n in range(2**size)]
        if kind == "OneOf":
            patterns = [p for p in patterns if sum(p) == 1]
        rows = [np.array([[*row, *p] for row in rows[0] for p in patterns])]
    return [jnp.asarray(part) for part in np.split(rows[0], np.cumsum(machine.sizes)[:-1], axis=1)]


def test_energies_are_the_formulas(x64):
    deep = layered(3, 2, 3)
    one, two = deep.chain.stages
    x, h, k = (np.asarray(s) for s in every_state(deep))
    want = [
        -(deep.bias @ x[i]) - h[i] @ (one.weight.T @ x[i] + one.bias) - k[i] @ (two.weight.T @ h[i] + two.bias)
        for i in range(0, len(x), 17)
    ]
    assert np.allclose(deep.energy(every_state(deep))[::17], want)
    general = MACHINES["all visible spins"]()
    s = np.asarray(every_state(general)[0])
    pairs = list(itertools.combinations(range(4), 2))
    want = -sum(w * s[:, i] * s[:, j] for w, (i, j) in zip(np.asarray(general.weight), pairs, strict=True))
    assert np.allclose(general.energy([jnp.asarray(s)]), want - s @ np.asarray(general.bias))


@pytest.mark.parametrize("name", ["with a label", "deep with a label", "spins", "general", "all visible spins"])
def test_partition_functions_and_conditionals_are_those_of_all_states(x64, name):
    """log_partition by a sum over states; p(unit | all others) from the energies of the states that differ in it."""
    machine = MACHINES[name]()
    state = every_state(machine)
    x, y = state[0][:1], jnp.array([1]) if machine.labels else None

    @eqx.filter_jit
    def measure(machine, state):
        fields = machine.fields(state)
        means = [units.mean(field) for units, field in zip(machine.units, fields, strict=True)]
        chances = [jax.nn.sigmoid(units.logits(field)) for units, field in zip(machine.units, fields, strict=True)]
        whole, given_x = log_partition(machine), log_partition(machine, x)
        return machine.energy(state), means, chances, whole, given_x, log_partition(machine, x, y)

    energy, means, chances, *found = jax.tree.map(np.asarray, measure(machine, state))
    mass = np.exp(-energy)
    agrees = np.all(np.asarray(state[0]) == np.asarray(x), axis=1)
    labelled = agrees & (np.asarray(state[-1]).argmax(1) == 1) if machine.labels else agrees
    assert np.allclose(np.ravel(found), np.log([mass.sum(), mass[agrees].sum(), mass[labelled].sum()]))

    ends = np.cumsum(machine.sizes)
    flat = np.concatenate(state, axis=1)
    for k, units in enumerate(machine.units):
        members = np.arange(ends[k] - machine.sizes[k], ends[k])
        for changed in [members] if type(units).__name__ == "OneOf" else members[:, None]:
            _, others = np.unique(np.delete(flat, changed, axis=1), axis=0, return_inverse=True)
            share = mass / np.bincount(others.ravel(), mass)[others.ravel()]
            for unit in changed:
                mean = np.bincount(others.ravel(), share * flat[:, unit])[others.ravel()]
                upper = np.bincount(others.ravel(), share * (flat[:, unit] > 0))[others.ravel()]
                assert np.allclose(means[k][:, unit - members[0]], mean)
                assert type(units).__name__ == "OneOf" or np.allclose(chances[k][:, unit - members[0]], upper)


@pytest.mark.parametrize("name", ["deep with a label", "general"])
def test_gibbs_sampling_visits_states_with_their_probability(name):
    """A chi-square test of where 2,000 chains end, that start from noise, free and with x clamped."""
    machine, chains = jax.tree.map(lambda leaf: 0.6 * leaf, MACHINES[name]()), 2_000
    state = every_state(machine)

    @eqx.filter_jit
    def run(machine, state, free, key):

        def sweep(i, state):
            return machine.sweep(state, free, jax.random.fold_in(key, i))

        return jax.lax.fori_loop(0, 20, sweep, state)

    def name_of(state):
        return np.asarray((jnp.concatenate(state, axis=1) > 0) @ 2 ** jnp.arange(sum(machine.sizes)))

    start = machine.start(chains, key=jax.random.key(2))
    clamped = [state[0][:1].repeat(chains, 0), *start[1:]]
    for begin, free in ((start, machine.groups), (clamped, machine.groups[1:])):
        possible = np.all(state[0] == state[0][0], axis=1) | (0 in free)
        p = np.asarray(jax.nn.softmax(jnp.where(possible, -machine.energy(state), -jnp.inf)))
        ended = name_of(run(machine, begin, free, jax.random.key(3)))
        found = np.array([np.sum(ended == one) for one in name_of(state)])
        assert found.sum() == chains
        rare = chains * p < 5
        observed = np.append(found[~rare], found[rare].sum())
        expected = np.append(chains * p[~rare], chains * p[rare].sum())
        excess = np.sum((observed - expected) ** 2 / np.maximum(expected, 1))
        assert excess < chi2.ppf(0.9999, len(expected) - 1)


def test_odd_layers_are_summed_over_in_closed_form(x64):
    machine = layered(3, 2, 3)
    state = every_state(machine)
    got, energy = eqx.filter_jit(lambda m, s: (m.free_energy(s), m.energy(s)))(machine, state)
    _, even = np.unique(np.concatenate(state[::2], axis=1), axis=0, return_inverse=True)
    assert np.allclose(got, -np.log(np.bincount(even.ravel(), np.exp(-np.asarray(energy))))[even.ravel()])


@pytest.mark.parametrize("machine", [lambda: layered(3, 4, 3, labels=True), lambda: layered(3, 2, labels=True)])
def test_with_at_most_one_hidden_layer_logits_and_evidence_are_exact(x64, machine):
    machine = machine()
    x = jnp.asarray(machine.units[0].states(3))
    classes = machine.sizes[-1]

    @eqx.filter_jit
    def measure(machine):
        labels = [jnp.full(len(x), c) for c in range(classes)]
        exact = jnp.stack([log_partition(machine, x, y) for y in labels], axis=1)
        return exact, jnp.stack([machine.evidence(x, y) for y in labels], axis=1), machine(x)

    exact, evidence, logits = measure(machine)
    assert np.allclose(evidence, exact)
    assert np.allclose(jax.nn.softmax(logits), jax.nn.softmax(exact))
    assert (machine.input_shape, machine.output_shape) == ((3,), (classes,))


@pytest.mark.parametrize("name", ["deep", "spins", "general"])
def test_sweeps_of_mean_field_raise_a_bound_of_the_evidence(x64, name):
    machine = MACHINES[name]()
    x = jnp.asarray(machine.units[0].states(3))

    @eqx.filter_jit
    def bound(machine, steps):
        relaxation = GradientFlow(steps) if name == "general" else Sweeps(steps)
        machine = eqx.tree_at(lambda m: m.relaxation, machine, relaxation, is_leaf=lambda m: isinstance(m, Relaxation))
        return machine.evidence(x), log_partition(machine, x)

    (first, exact), (fifth, _) = bound(machine, 1), bound(machine, 5)
    assert np.all(first < fifth)
    assert np.all(fifth < exact)


def test_reconstructions_are_those_of_the_hidden_means(x64):
    machine = MACHINES["restricted"]()
    x = jnp.asarray(machine.units[0].states(4))
    weight, bias = machine.chain.stages[0].weight, machine.chain.stages[0].bias
    assert np.allclose(eqx.filter_jit(machine)(x), jax.nn.sigmoid(x @ weight + bias) @ weight.T + machine.bias)


def test_bad_machines_are_refused(key):
    with pytest.raises(TypeError, match=r"output='sigmoid'.*labels=True"):
        Boltzmann(ap.nets.mlp(4, 3, 2, activation="sigmoid", key=key))
    with pytest.raises(TypeError, match="activation='sigmoid'"):
        Boltzmann(ap.nets.mlp(4, 3, 2, activation="relu", key=key), labels=True)
    with pytest.raises(TypeError, match="without activation"):
        Boltzmann(ap.nets.mlp(4, 3, 2, activation="sigmoid", output="sigmoid", key=key), labels=True)
    with pytest.raises(TypeError, match="one kind"):
        Boltzmann(ap.nets.mlp(4, 3, 2, activation="sigmoid", output="tanh", key=key))
    with pytest.raises(TypeError, match="Activate"):
        Boltzmann(ap.nets.Chain([ap.nets.Activate("tanh")], input_shape=(3,)))
    with pytest.raises(ValueError, match="bias"):
        Boltzmann(ap.nets.mlp(4, 3, output="sigmoid", key=key), bias=jnp.zeros(3))
    with pytest.raises(ValueError, match="no label"):
        MACHINES["restricted"]().evidence(jnp.zeros((1, 4)), jnp.array([0]))
    with pytest.raises(ValueError, match="states to sum over"):
        log_partition(Boltzmann(ap.nets.mlp(20, 3, output="sigmoid", key=key)))
    for argument, value in (("visible", 0), ("hidden", -1), ("classes", -1), ("scale", 0.0), ("kind", "ternary")):
        with pytest.raises((ValueError, TypeError), match=argument):
            GeneralBoltzmann(**{"visible": 2, "hidden": 2, "key": key, argument: value})


@pytest.mark.parametrize(
    ("name", "low", "outside"), [("restricted", 0.0, -0.1), ("spins", -1.0, -1.1), ("all visible spins", -1.0, 1.1)]
)
def test_inputs_that_no_unit_has_are_refused(name, low, outside):
    machine = MACHINES[name]()
    ends = jnp.full((2, machine.sizes[0]), low).at[1].set(1.0)
    calls = [machine, machine.mean_field, machine.evidence, lambda x: log_partition(machine, x)]
    calls += [lambda x: machine.start(2, x=x)]
    for call in calls:
        jax.eval_shape(call, ends)  # while it is traced, x has no values yet
        jax.eval_shape(lambda call=call: call(ends))  # unless it is a constant
        for bad in (outside, jnp.nan, jnp.inf):
            with pytest.raises(ValueError, match=rf"x must be finite and lie between {low:g} and 1"):
                call(ends.at[1, 2].set(bad))
    machine.start(2, x=ends)
