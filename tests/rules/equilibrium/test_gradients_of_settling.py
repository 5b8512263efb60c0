import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anyprop.contract import Batch
from anyprop.energies import Feedforward, GradientFlow, Hopfield
from anyprop.nets import mlp
from anyprop.rules.equilibrium import BackpropThroughRelaxation, ImplicitDifferentiation


def flat(tree):
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def examples(key):
    return Batch(jax.random.normal(key, (5, 4)), jnp.arange(5) % 3)


def slope(cost, learner):
    """The derivative of a cost along a random direction, by finite differences."""
    keys = iter(jax.random.split(jax.random.key(9), 20))
    way = jax.tree.map(lambda w: jax.random.normal(next(keys), w.shape), learner.params[0])
    move = jax.jit(lambda length: cost(eqx.apply_updates(learner.model, jax.tree.map(lambda d: length * d, way))))
    return flat(way), (move(1e-5) - move(-1e-5)) / 2e-5


@pytest.mark.parametrize(("read", "steps"), [(Hopfield, 5), (Feedforward, 1)])
def test_back_through_all_steps_it_is_the_gradient_of_the_cost_after_them(x64, key, read, steps):
    """And of where they start from, which is a forward pass in a feedforward reading."""
    net, batch = read(mlp(4, 6, 3, activation="tanh", output="tanh", key=key)), examples(key)
    rule = BackpropThroughRelaxation(steps, free_steps=steps)
    learner = rule.init(net, key=key)

    def cost(model):
        state, flow = model.start(batch.x), GradientFlow(1, 0.5)
        for _ in range(steps):
            state = flow.step(model.dynamics(batch.x), state)
        return jnp.mean(rule.loss(model.output(state), batch.y))

    credit = eqx.filter_jit(rule.credit)(learner, batch, key=key)
    way, measured = slope(cost, learner)
    np.testing.assert_allclose(flat(credit.grads) @ way, measured, rtol=1e-7)
    np.testing.assert_allclose(credit.loss, cost(learner.model), rtol=1e-12)


@pytest.mark.parametrize("settings", [{}, {"network": "convergent", "relaxation": "fixed-point"}])
def test_at_rest_and_far_enough_back_both_are_the_gradient_of_the_cost_at_rest(x64, key, settings):
    net = jax.tree.map(lambda w: 0.6 * w, mlp(4, 6, 3, activation="tanh", output="tanh", key=key))
    batch = examples(key)
    implicit = ImplicitDifferentiation(free_steps=400, **settings)
    rules = [BackpropThroughRelaxation(steps, free_steps=400, **settings) for steps in (10, 200)]
    learner = implicit.init(net, key=key)
    credits = eqx.filter_jit(lambda m: [rule.credit(m, batch, key=key) for rule in (*rules, implicit)])(learner)
    few, many, exact = (flat(credit.grads) for credit in credits)
    np.testing.assert_allclose(credits[0].loss, credits[2].loss, rtol=1e-8)  # it goes back from the same rest
    way, measured = slope(lambda model: jnp.mean(implicit.loss(model(batch.x), batch.y)), learner)
    np.testing.assert_allclose(exact @ way, measured, rtol=1e-7)
    np.testing.assert_allclose(many, exact, rtol=1e-7, atol=1e-10)
    assert 1e-5 < jnp.linalg.norm(few - exact) / jnp.linalg.norm(exact) < 0.5


def test_they_say_how_the_relaxation_ended(x64, key):
    net, batch = mlp(4, 6, 3, activation="tanh", output="tanh", key=key), examples(key)
    for rule in (
        BackpropThroughRelaxation(free_steps=300, tolerance=1e-6),
        ImplicitDifferentiation(free_steps=300, tolerance=1e-6),
    ):
        learner = rule.init(net, key=key)
        metrics = eqx.filter_jit(rule.credit)(learner, batch, key=key).metrics
        ends = Hopfield(net, relaxation=GradientFlow(300, 0.5, 1e-6)).settle(batch.x)
        assert metrics["free_converged"] == 1
        assert metrics["free_residual"] <= 1e-6
        assert ends.steps.mean() - 20 <= metrics["free_steps"] <= ends.steps.mean() + 20


def test_bad_numbers_are_refused():
    with pytest.raises(ValueError, match="backward_steps=60 must be at most free_steps=50"):
        BackpropThroughRelaxation(60)
    with pytest.raises(ValueError, match="backward_steps"):
        BackpropThroughRelaxation(0)
    with pytest.raises(ValueError, match="tolerance"):
        ImplicitDifferentiation(tolerance=-1.0)
