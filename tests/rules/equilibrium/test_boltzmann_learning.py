import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import anyprop as ap
from anyprop.energies import Boltzmann, GeneralBoltzmann, log_partition
from anyprop.rules.equilibrium import BoltzmannLearning


def strong(model):
    """The same model with all of its arrays drawn anew."""
    leaves, treedef = jax.tree.flatten(model)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return treedef.unflatten([0.6 * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)])


def layered():
    chain = ap.nets.mlp(3, 2, 2, 3, activation="sigmoid", key=jax.random.key(0))
    return strong(Boltzmann(chain, labels=True))


def general():
    return strong(GeneralBoltzmann(3, 3, 3, key=jax.random.key(0)))


@pytest.mark.parametrize(
    ("machine", "objective"), [(layered, "conditional"), (general, "conditional"), (general, "joint")]
)
def test_the_mean_update_is_the_gradient_of_the_likelihood(x64, machine, objective):
    """Within four standard errors, of 500 draws, of that by sums over all states."""
    machine = machine()
    batch = ap.Batch(jnp.array([[1.0, 0, 1], [0, 1, 1], [1, 1, 1], [0, 0, 1]]), jnp.array([0, 1, 2, 1]))
    rule = BoltzmannLearning(objective=objective, burn_in=10, sweeps=5)
    learner = rule.init(machine, key=jax.random.key(2))

    @eqx.filter_jit
    def measure(machine, keys):
        def cost(machine):
            released = log_partition(machine, batch.x) if objective == "conditional" else log_partition(machine)
            return jnp.mean(released) - jnp.mean(log_partition(machine, batch.x, batch.y))

        return eqx.filter_grad(cost)(machine), jax.vmap(lambda key: rule.credit(learner, batch, key=key).grads[0])(keys)

    want, draws = measure(machine, jax.random.split(jax.random.key(3), 500))
    signals = []
    for expected, drawn in zip(jax.tree.leaves(want), jax.tree.leaves(draws), strict=True):
        error = jnp.std(drawn, axis=0) / np.sqrt(len(drawn))
        assert np.all(np.abs(jnp.mean(drawn, axis=0) - expected) <= 4 * error + 1e-12)
        assert np.all(error < 0.03)
        signals.append(np.max(np.abs(expected) / (error + 1e-12)))
    assert max(signals) > 8


def train(rule, machine, batch, steps, rate):
    """The answers of a machine after so many updates by Adam."""
    arrays, static = eqx.partition(rule.init(machine, key=jax.random.key(3)), eqx.is_array)
    optimizer = optax.adam(rate)

    def step(carry, key):
        learner = eqx.combine(carry[0], static)
        credit = rule.credit(learner, batch, key=key)
        updates, state = optimizer.update(credit.grads, carry[1])
        return (eqx.filter(learner.apply(updates, credit.memory), eqx.is_array), state), None

    @jax.jit
    def run(arrays):
        start = arrays, optimizer.init(eqx.combine(arrays, static).params)
        learner = jax.lax.scan(step, start, jax.random.split(jax.random.key(4), steps))[0][0]
        return eqx.combine(learner, static).model(batch.x)

    return run(arrays)


def test_a_general_machine_learns_exclusive_or():
    x = jnp.asarray(list(itertools.product((0.0, 1.0), repeat=2)))
    batch = ap.Batch(x, jnp.array([0, 1, 1, 0]))
    machine = GeneralBoltzmann(2, 4, 2, scale=0.5, key=jax.random.key(0))
    answers = train(BoltzmannLearning(burn_in=10), machine, batch, 400, 0.05)
    assert not ap.losses.wrong(answers, batch.y).any()
    assert np.mean(ap.losses.CrossEntropy()(answers, batch.y)) < 0.4


def test_layers_learn_which_way_a_pattern_was_shifted():
    """Four units, and the same turned left, not at all, or right; of six patterns nobody can tell."""
    pattern = np.array(list(itertools.product((0.0, 1.0), repeat=4)))
    x = np.concatenate([np.concatenate([pattern, np.roll(pattern, by, axis=1)], axis=1) for by in (-1, 0, 1)])
    batch = ap.Batch(jnp.asarray(x, jnp.float32), jnp.repeat(jnp.arange(3), 16))
    machine = Boltzmann(ap.nets.mlp(8, 24, 3, activation="sigmoid", key=jax.random.key(0)), labels=True)
    answers = train(BoltzmannLearning(burn_in=5), machine, batch, 600, 0.03)
    best = 2 * 2 / 48 + 2 / 48  # of 0000 and 1111 one shift in three is right, of 0101 and 1010 two
    assert ap.losses.wrong(answers, batch.y).mean() < best + 0.05


def test_a_chain_is_read_without_a_bias_of_x_where_that_says_nothing(key):
    chain = ap.nets.mlp(3, 2, 2, activation="sigmoid", key=key)
    assert BoltzmannLearning().init(chain, key=key).model.bias is None
    assert np.array_equal(BoltzmannLearning(objective="joint").init(chain, key=key).model.bias, np.zeros(3))


def test_other_models_and_settings_are_refused(key):
    with pytest.raises(TypeError, match="Boltzmann machine"):
        BoltzmannLearning().init(eqx.nn.Linear(3, 2, key=key), key=key)
    unlabelled = GeneralBoltzmann(3, 2, key=key)
    with pytest.raises(ValueError, match="objective='joint'"):
        BoltzmannLearning(loss="binary-cross-entropy").init(unlabelled, key=key)
    with pytest.raises(ValueError, match="binary-cross-entropy"):
        BoltzmannLearning(objective="joint").init(unlabelled, key=key)
    for argument, value in (("burn_in", -1), ("sweeps", 0), ("objective", "both")):
        with pytest.raises((ValueError, TypeError), match=argument):
            BoltzmannLearning(**{argument: value})
