import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import anyprop as ap
from anyprop.diagnose import annealed_importance, autocorrelation_time
from anyprop.energies import Boltzmann, GeneralBoltzmann, log_partition


def strong(model):
    """The same model with all of its arrays drawn anew, with a standard deviation of 1."""
    leaves, treedef = jax.tree.flatten(model)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return treedef.unflatten([jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)])


def deep_with_label(key):
    return Boltzmann(ap.nets.mlp(4, 3, 3, 3, activation="sigmoid", key=key), labels=True)


def spins(key):
    return Boltzmann(ap.nets.mlp(5, 4, output="tanh", key=key))


def general(key):
    return GeneralBoltzmann(4, 3, 2, key=key)


@pytest.mark.parametrize(("machine", "from_data"), [(deep_with_label, True), (spins, True), (general, False)])
def test_it_finds_the_sum_over_all_states(key, machine, from_data):
    machine = strong(machine(key))
    exact = eqx.filter_jit(log_partition)(machine)[0]
    x = jnp.asarray(machine.units[0].states(machine.sizes[0])[:5], jnp.float32)
    found = annealed_importance(machine, steps=100, chains=400, x=x if from_data else None, key=key)
    assert found.standard_error < 0.05
    assert abs(found.value - exact) < 3.5 * found.standard_error
    assert 100 < found.effective_chains <= 400


def test_without_connections_it_is_exact(key):
    machine = strong(spins(key)).isolated()
    found = annealed_importance(machine, steps=1, chains=2, key=key)
    assert np.allclose(found.value, log_partition(machine)[0], rtol=1e-6)
    assert found.standard_error < 1e-6
    assert np.allclose(found.effective_chains, 2)


def test_the_likelihood_of_data_is_the_evidence_less_log_z(x64, key):
    machine = strong(spins(key))
    x = jnp.asarray(machine.units[0].states(5))
    assert np.allclose(jnp.exp(machine.evidence(x) - log_partition(machine)).sum(), 1)


@pytest.mark.parametrize(
    ("argument", "value"), [("steps", 0), ("chains", 1), ("betas", [0.5, 1.0]), ("betas", [0.0, 0.6, 0.5, 1.0])]
)
def test_bad_arguments_are_named(key, argument, value):
    value = jnp.asarray(value) if argument == "betas" else value
    with pytest.raises(ValueError, match=argument):
        annealed_importance(spins(key), key=key, **{argument: value})


@pytest.mark.parametrize("bad", [2.0, jnp.nan])
def test_data_that_no_unit_has_are_refused(key, bad):
    with pytest.raises(ValueError, match="x must be finite and lie between -1 and 1"):
        annealed_importance(spins(key), x=jnp.ones((6, 5)).at[3, 1].set(bad), key=key)


def test_the_autocorrelation_time_of_an_autoregressive_chain(key):
    """x_t = a x_{t-1} + noise has rho_t = a^t and so tau = (1 + a) / (1 - a)."""
    noise = np.random.default_rng(0).normal(size=(4000, 50))
    for a in (0.0, 0.5, 0.9):
        x = np.zeros_like(noise)
        x[0] = noise[0] / np.sqrt(1 - a**2)
        for t in range(1, len(x)):
            x[t] = a * x[t - 1] + noise[t]
        assert np.isclose(autocorrelation_time(jnp.asarray(x)), (1 + a) / (1 - a), rtol=0.05)


def test_stuck_chains_have_a_long_time():
    stuck = jnp.repeat(jnp.array([[0.0, 1.0]]), 100, axis=0)
    assert autocorrelation_time(stuck) > 50
    assert autocorrelation_time(jnp.ones(100)) == jnp.inf


def test_the_time_of_gibbs_chains_grows_with_the_weights(key):
    """A ferromagnet of two layers, whose two modes part as its weights grow."""
    chain = ap.nets.mlp(6, 6, output="tanh", key=key)

    @jax.jit
    def time(weight):
        machine = eqx.tree_at(lambda m: m.chain.stages[0].weight, Boltzmann(chain), jnp.full((6, 6), weight))

        def sweep(state, key):
            state = machine.sweep(state, machine.groups, key)
            return state, jnp.mean(state[0], axis=1)

        start = machine.start(100, key=key)
        return autocorrelation_time(jax.lax.scan(sweep, start, jax.random.split(key, 500))[1])

    times = [time(weight) for weight in (0.0, 0.15, 0.3, 0.45)]
    assert np.isclose(times[0], 1, atol=0.05)
    assert np.all(np.diff(times) > 0)
    assert times[-1] > 20
