"""Conductance perturbation, and the spiking network that it trains."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest

from anyprop.contract import Batch
from anyprop.losses import SquaredError
from anyprop.nets import SpikingNetwork, mlp
from anyprop.rules.perturbation import ConductancePerturbation


def with_weights(net, *weights):
    return eqx.tree_at(lambda n: n.weights, net, tuple(map(jnp.array, weights)))


@pytest.mark.parametrize("g", [0.1, 0.4, 1.0])
def test_firing_rate_of_one_unit(g, key):
    # A conductance g charges the membrane from -70 towards -70 / (1 + g) mV, in 20 / (1 + g) ms.
    net = with_weights(SpikingNetwork(1, 1, duration=1000, key=key), [[g]])
    steady, tau = -70 / (1 + g), 20 / (1 + g)
    if steady < -54:
        spikes = 0
    else:
        interval = math.ceil(tau * math.log((steady + 70) / (steady + 54)))
        spikes = 1000 // interval
    assert net(jnp.ones((1, 1))) == pytest.approx(spikes / 100)


def test_inhibition_lowers_the_rate(key):
    net = with_weights(SpikingNetwork(2, 1, key=key), [[1.0], [-1.0]])
    alone, inhibited = net(jnp.array([[1.0, 0.0], [1.0, 0.5]]))
    assert 0 < inhibited < alone


def test_synaptic_activation_has_the_mean_of_the_rate(key):
    net = with_weights(SpikingNetwork(1, 1, 1, duration=2000, key=key), [[1.0]], [[1.0]])
    first = with_weights(SpikingNetwork(1, 1, duration=2000, key=key), [[1.0]])
    still = [jnp.zeros((2000, 2, 1, 1))] * 2
    _, (_, hidden) = net.simulate(jnp.ones((1, 1)), still)
    assert hidden.mean() == pytest.approx(float(first(jnp.ones((1, 1)))[0, 0]), rel=0.02)


def test_mean_update_is_the_gradient_of_the_noisy_cost(key):
    # Two layers, synapses of both signs; every example is one more trial.
    net = SpikingNetwork(2, 3, 1, duration=60, key=key)
    net = with_weights(net, [[0.6, 0.4, -0.3], [0.3, -0.4, 0.8]], [[0.5], [0.6], [-0.5]])
    trials = 4000
    batch = Batch(jnp.tile(jnp.array([[1.0, 0.6]]), (trials, 1)), jnp.full((trials, 1), 0.2))
    rule = ConductancePerturbation(sigma=0.3, loss="squared-error")
    learner, credit_of = rule.init(net, key=key), jax.jit(rule.credit)
    learner = learner.apply(jax.tree.map(jnp.zeros_like, learner.params), credit_of(learner, batch, key=key).memory)
    keys = jax.random.split(jax.random.key(1), 6)
    updates = jnp.stack([jax.flatten_util.ravel_pytree(credit_of(learner, batch, key=k).grads)[0] for k in keys])

    weights, as_net = jax.flatten_util.ravel_pytree(net)

    @jax.jit
    @jax.vmap
    def cost(weights):
        shapes = [(net.duration, 2, trials, w.shape[1]) for w in net.weights]
        noise = [0.3 * jax.random.normal(k, s) for k, s in zip(jax.random.split(key), shapes, strict=True)]
        return jnp.mean(SquaredError()(as_net(weights).simulate(batch.x, noise)[0], batch.y))

    nudges = 0.1 * jnp.eye(len(weights))
    differences = (cost(weights + nudges) - cost(weights - nudges)) / 0.2
    update = updates.mean(0)
    cosine = update @ differences / jnp.linalg.norm(update) / jnp.linalg.norm(differences)
    assert cosine > 0.995
    assert jnp.linalg.norm(update) / jnp.linalg.norm(differences) == pytest.approx(1, abs=0.05)


def test_learns_two_patterns(key):
    rule = ConductancePerturbation(loss="squared-error")
    x, y = jnp.array([[1.0, 0.2], [0.2, 1.0]]), jnp.array([[1.0, 0.2], [0.2, 1.0]])
    batch = Batch(jnp.tile(x, (16, 1)), jnp.tile(y, (16, 1)))
    learner = rule.init(SpikingNetwork(2, 6, 2, duration=100, key=key), key=key)
    optimizer = optax.adam(0.01)

    def step(carry, key):
        learner, state = carry
        credit = rule.credit(learner, batch, key=key)
        updates, state = optimizer.update(credit.grads, state, learner.params)
        return (learner.apply(updates, credit.memory), state), credit.loss

    start = (learner, optimizer.init(learner.params))
    (trained, _), losses = jax.jit(lambda start: jax.lax.scan(step, start, jax.random.split(key, 200)))(start)
    assert losses[-20:].mean() < 0.3 * losses[:5].mean()
    still = lambda learner: SquaredError()(learner.model(x), y).mean()  # noqa: E731
    assert still(trained) < 0.5 * still(learner)
    assert trained.memory.value == pytest.approx(float(losses[-20:].mean()), rel=0.3)


def test_baseline_lowers_the_variance(key):
    rule = ConductancePerturbation(loss="squared-error")
    batch = Batch(jnp.ones((64, 2)), jnp.full((64, 1), 2.0))
    learner, credit_of = rule.init(SpikingNetwork(2, 1, duration=50, key=key), key=key), jax.jit(rule.credit)
    informed = eqx.tree_at(lambda l: l.memory, learner, credit_of(learner, batch, key=key).memory)

    def variance(learner):
        keys = jax.random.split(jax.random.key(1), 20)
        grads = [credit_of(learner, batch, key=k).grads[0].weights[0] for k in keys]
        return jnp.stack(grads).var(0).sum()

    assert variance(informed) < 0.5 * variance(learner)


def test_refuses_what_it_cannot_use(key):
    with pytest.raises(TypeError, match=r"ap\.nets\.SpikingNetwork"):
        ConductancePerturbation().init(mlp(2, 3, 1, key=key), key=key)
    with pytest.raises(ValueError, match="sigma must be a finite number above zero"):
        ConductancePerturbation(sigma=0.0)
    with pytest.raises(ValueError, match="baseline_decay must be at least 0 and below 1"):
        ConductancePerturbation(baseline_decay=1.0)
    with pytest.raises(ValueError, match="must name the input and the output"):
        SpikingNetwork(2, key=key)
    with pytest.raises(ValueError, match="duration must be an integer of at least 1"):
        SpikingNetwork(2, 1, duration=0, key=key)
