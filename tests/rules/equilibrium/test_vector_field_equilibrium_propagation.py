import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from anyprop.contract import Batch
from anyprop.diagnose._layers import cosine
from anyprop.energies import FixedPoint, GradientFlow, VectorField
from anyprop.nets import Chain, Conv, Dense, Flatten, Norm, Pool, affines_above_first, mlp
from anyprop.rules.equilibrium import VectorFieldEquilibriumPropagation

SETTLED = {"free_steps": 800, "nudged_steps": 800, "step_size": 0.3, "tolerance": 1e-15}


def network(key, units="sigmoid"):
    return VectorField.drawn(mlp(4, 5, 4, 3, activation=units, output=units, key=key), key=jax.random.key(1))


def examples(key):
    return Batch(jax.random.normal(key, (3, 4)), jnp.arange(3))


def flat(tree):
    return ravel_pytree(tree)[0]


def test_the_field_is_the_published_one(x64, key):
    model, x = network(key), examples(key).x
    s1, s2, s3 = (jax.random.normal(jax.random.key(n), (3, n)) for n in (5, 4, 3))
    (w1, w2, w3), (b2, b3) = ((np.asarray(site.weight) for site in model.chain.stages), map(np.asarray, model.feedback))
    r1, r2, r3 = (1 / (1 + np.exp(-np.asarray(s))) for s in (s1, s2, s3))
    expected = [x @ w1 + r2 @ b2.T - s1, r1 @ w2 + r3 @ b3.T - s2, r2 @ w3 - s3]
    for mu, by_hand in zip(model.field([s1, s2, s3], x), expected, strict=True):
        np.testing.assert_allclose(mu, by_hand, rtol=1e-12)


def theory(model, batch, loss):
    """The gradient at rest and the limit of the update, from dense matrices, the mean over examples."""
    rest = model.settle(batch.x, relaxation=GradientFlow(800, 0.3)).state
    arrays, static = eqx.partition(model, eqx.is_inexact_array)
    theta, shape = ravel_pytree(arrays)
    gradient, limit = 0.0, 0.0
    for i in range(len(batch.x)):
        x, y = batch.x[i : i + 1], batch.y[i : i + 1]
        s, states = ravel_pytree(jax.tree.map(lambda a, i=i: a[i : i + 1], rest))

        def mu(theta, s, x=x, states=states):
            return flat(eqx.combine(shape(theta), static).field(states(s), x))

        by_theta, by_state = jax.jacobian(mu, argnums=(0, 1))(theta, s)
        slope = jax.grad(lambda s, y=y, states=states: loss(states(s)[-1], y).sum())(s)
        gradient -= by_theta.T @ jnp.linalg.solve(by_state.T, slope) / len(batch.x)
        limit -= by_theta.T @ jnp.linalg.solve(by_state, slope) / len(batch.x)
    return gradient, limit


def test_the_update_tends_to_the_theorys_direction_and_to_the_gradient_where_the_field_has_an_energy(x64, key):
    batch = examples(key)
    rules = [VectorFieldEquilibriumPropagation(beta, **SETTLED) for beta in (2e-3, 1e-3)]

    @eqx.filter_jit
    def found(model):
        learner = rules[0].init(model, key=key)
        return *theory(model, batch, rules[0].loss), [flat(r.credit(learner, batch, key=key).grads) for r in rules]

    def error(update, exact):
        return jnp.linalg.norm(update - exact) / jnp.linalg.norm(exact)

    gradient, limit, (twice, once) = found(network(key))
    assert error(once, limit) < 2e-3
    assert 1.9 < error(twice, limit) / error(once, limit) < 2.1
    assert error(limit, gradient) > 0.02
    assert cosine(limit, gradient) > 0.5

    linear = network(key, "identity")
    forward = [0.3 * site.weight for site in affines_above_first(linear.chain)]
    chain = eqx.tree_at(lambda c: [site.weight for site in affines_above_first(c)], linear.chain, forward)
    symmetric = VectorField(chain, forward)
    gradient, limit, (_, once) = found(symmetric)
    np.testing.assert_allclose(limit, gradient, rtol=1e-8)
    assert error(once, gradient) < 1e-2


def test_the_update_of_a_synapse_is_a_presynaptic_rate_times_a_postsynaptic_change(x64, key):
    model, batch = network(key, "tanh"), examples(key)
    rule = VectorFieldEquilibriumPropagation(0.5, free_steps=9, nudged_steps=4, loss="cross-entropy")
    learner = rule.init(model, key=key)
    grads = eqx.filter_jit(rule.credit)(learner, batch, key=key).grads[0]
    free = learner.model.settle(batch.x).state
    nudged = learner.model.settle(
        batch.x, free, nudge=lambda s: 0.5 * rule.loss(s[-1], batch.y), relaxation=GradientFlow(4, 0.5)
    ).state
    change, rates = [(n - f) / 0.5 / 3 for n, f in zip(nudged, free, strict=True)], [jnp.tanh(s) for s in free]
    np.testing.assert_allclose(grads.chain.stages[1].weight, -rates[0].T @ change[1], rtol=1e-9)
    np.testing.assert_allclose(grads.chain.stages[1].bias, -change[1].sum(0), rtol=1e-9)
    np.testing.assert_allclose(grads.feedback[0], -(rates[1].T @ change[0]).T, rtol=1e-9)


def test_shared_updates_keep_the_difference_of_the_two_weights(x64, key):
    model, batch = network(key, "tanh"), examples(key)
    rules = [VectorFieldEquilibriumPropagation(shared_update=shared) for shared in (False, True)]
    learner = rules[0].init(model, key=key)
    own, shared = eqx.filter_jit(lambda m: [r.credit(m, batch, key=key) for r in rules])(learner)
    mean = (own.grads[0].chain.stages[1].weight + own.grads[0].feedback[0]) / 2
    np.testing.assert_allclose(shared.grads[0].chain.stages[1].weight, mean, rtol=1e-12)
    np.testing.assert_allclose(shared.grads[0].feedback[0], mean, rtol=1e-12)
    np.testing.assert_allclose(shared.grads[0].chain.stages[0].weight, own.grads[0].chain.stages[0].weight)
    for k in (2, 3):
        trace = np.trace(np.asarray(model.feedback[k - 2]).T @ np.asarray(model.chain.stages[k - 1].weight))
        np.testing.assert_allclose(own.metrics[f"feedback_trace_{k}"], trace, rtol=1e-12)


def test_images_and_both_ways_of_settling(x64, key):
    stages = [Conv(1, 2, 3, activation="tanh", key=key), Pool("mean", 2), Flatten(), Dense(8, 3, key=key)]
    model = VectorField.drawn(Chain(stages, input_shape=(4, 4, 1)), key=jax.random.key(1))
    x = 0.3 * jax.random.normal(key, (2, 4, 4, 1))
    ends = [eqx.filter_jit(model.settle)(x, relaxation=way).state for way in (GradientFlow(300), FixedPoint(300))]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-9), *ends)
    assert model.output(ends[0]).shape == (2, *model.output_shape)
    assert model.input_shape == (4, 4, 1)


def test_what_does_not_fit_is_refused(key):
    chain = mlp(4, 5, 3, key=key)
    with pytest.raises(ValueError, match=r"VectorField\.drawn"):
        VectorField(chain, [jnp.ones((3, 5))])
    with pytest.raises(TypeError, match="Norm"):
        VectorField.drawn(Chain([Dense(4, 3, key=key), Norm(3), Dense(3, 2, key=key)]), key=key)
    with pytest.raises(TypeError, match="needs a chain"):
        VectorFieldEquilibriumPropagation().init(eqx.nn.Linear(4, 3, key=key), key=key)
    with pytest.raises(ValueError, match="beta"):
        VectorFieldEquilibriumPropagation(beta=0.0)
