import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anyprop.contract import Batch
from anyprop.energies import Convergent, Energy, Gaussian, GradientFlow, Hopfield, Initialized, ReadOut, Resistive
from anyprop.nets import Dense, mlp
from anyprop.rules.equilibrium import EquilibriumPropagation, StochasticEquilibriumPropagation

DRAWS = 64


class Wells(Energy):
    """Units in quadratic wells, so that the state is normally distributed: E = sum_j k_j s_j^2 / 2 - s_j (x w)_j."""

    w: jax.Array
    k: jax.Array
    relaxation: GradientFlow = eqx.field(default_factory=GradientFlow)

    def energy(self, state, x):
        return jnp.sum(0.5 * self.k * state**2 - state * (x @ self.w), axis=1)

    def start(self, x):
        return jnp.zeros((len(x), len(self.k)))

    def output(self, state):
        return state


def wells(key):
    return Wells(jax.random.normal(key, (4, 3)), jnp.asarray([0.8, 1.0, 1.5]))


def net(key):
    """Weights small enough to settle fast."""
    return jax.tree.map(lambda w: 0.5 * w, mlp(4, 5, 3, activation="tanh", output="hard-sigmoid", key=key))


def examples(key, count=6):
    return Batch(jax.random.normal(key, (count, 4)), jnp.arange(count) % 3)


@eqx.filter_jit
def draw(rule, learner, batch):
    """The updates of many keys."""
    keys = jax.random.split(jax.random.key(3), DRAWS)
    return jax.vmap(lambda key: rule.credit(learner, batch, key=key).grads[0])(keys)


@pytest.mark.parametrize(("beta", "variant"), [(1.0, "one-sided"), (0.4, "centred")])
def test_the_mean_update_is_the_gradient_of_a_difference_of_free_energies(x64, key, beta, variant):
    temperature, eps, samples = 0.5, 0.5, 50
    rule = StochasticEquilibriumPropagation(beta, variant, temperature, samples, spacing=10, step_size=eps)
    model, batch = wells(key), examples(key)
    low = -beta if variant == "centred" else 0.0

    def objective(model):
        def free_energy(x, y, beta):
            def total(s):
                return model.energy(s, x[None]) + beta * rule.loss(s, y[None])

            return Gaussian(3, temperature=temperature).free_energy(total)

        each = jax.vmap(free_energy, (0, 0, None))
        return jnp.mean(each(batch.x, batch.y, beta) - each(batch.x, batch.y, low)) / (beta - low)

    exact = eqx.filter_grad(objective)(model)
    updates = draw(rule, rule.init(model, key=key), batch)

    def distance(updates, expected):
        return np.abs(updates.mean(axis=0) - expected) / (updates.std(axis=0) / np.sqrt(DRAWS))

    assert np.max(distance(updates.w, exact.w)) < 4
    # The mean of s^2 has the width of the distribution in it, and the finite step of the dynamics with that.
    up, down = model.k + beta, model.k + low
    width, widened = (
        [temperature / c / (1 - step * c / 2) for c in (up, down)] for step in (0.0, eps)
    )  # fmt: skip
    bias = 0.5 * ((widened[0] - width[0]) - (widened[1] - width[1])) / (beta - low)
    assert np.max(distance(updates.k, exact.k + bias)) < 4
    # Each of the means has an error of sqrt(width / samples), and their difference is divided by that of the nudges.
    noise = np.mean(np.asarray(batch.x) ** 2, axis=0)[:, None] * (widened[0] + widened[1])
    noise = noise / samples / len(batch.x) / (beta - low) ** 2
    np.testing.assert_allclose(np.mean(updates.w.var(axis=0) / noise), 1.0, atol=0.2)


def test_without_heat_it_is_equilibrium_propagation(x64, key):
    batch, chain = examples(key), net(key)
    settings = {"nudged_steps": 150, "free_steps": 150, "step_size": 0.5}
    cold = StochasticEquilibriumPropagation(0.5, "centred", 0.0, 1, 1, **settings)
    still = EquilibriumPropagation(0.5, "centred", **settings)
    found, expected = (eqx.filter_jit(rule.credit)(rule.init(chain, key=key), batch, key=key) for rule in (cold, still))
    np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-9)
    for one, other in zip(jax.tree.leaves(found.grads), jax.tree.leaves(expected.grads), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert max(found.metrics["free_residual"], found.metrics["nudged_residual"]) < 1e-6
    np.testing.assert_allclose(found.metrics["nudge_speed"], expected.metrics["nudge_speed"], rtol=1e-6)
    assert cold.complaint({name: float(value) for name, value in found.metrics.items()}) is None


def test_it_reports_the_mean_over_the_free_samples(x64, key):
    model, batch = wells(key), examples(key)
    rule = StochasticEquilibriumPropagation(temperature=0.1, samples=400, spacing=10, step_size=0.5)
    credit = eqx.filter_jit(rule.credit)(rule.init(model, key=key), batch, key=key)
    error = np.sqrt(0.1 / model.k / (1 - 0.25 * model.k) / 400)
    assert np.max(np.abs(credit.output - batch.x @ model.w / model.k) / error) < 4
    np.testing.assert_allclose(credit.loss, jnp.mean(rule.loss(credit.output, batch.y)), rtol=1e-12)
    # Over the time of sampling, 400 times 10 steps of 0.5, a unit fluctuates and does not drift.
    assert credit.metrics["free_residual"] < 6 * np.sqrt(0.1 / 0.8) / (400 * 10 * 0.5)


def test_its_model_predicts_without_noise(key):
    rule = StochasticEquilibriumPropagation(free_steps=7, step_size=0.3)
    assert rule.init(wells(key), key=key).model.relaxation == GradientFlow(7, 0.3)
    assert rule.init(net(key), key=key).model.relaxation == GradientFlow(7, 0.3)


@pytest.mark.parametrize(
    "bad",
    [
        {"beta": 0.0},
        {"temperature": -1.0},
        {"samples": 0},
        {"spacing": 0},
        {"nudged_steps": 0},
        {"free_steps": 0},
        {"step_size": 0.0},
        {"variant": "random-sign"},
    ],
)
def test_numbers_out_of_range_are_refused(bad):
    with pytest.raises((ValueError, TypeError), match=next(iter(bad))):
        StochasticEquilibriumPropagation(**bad)


def test_models_whose_velocity_is_no_slope_are_refused(key):
    rates = Convergent(net(key))
    for model in (rates, ReadOut(rates, Dense(3, 2, key=key)), Initialized(rates)):
        with pytest.raises(TypeError, match="Convergent is not the slope"):
            StochasticEquilibriumPropagation().init(model, key=key)
    with pytest.raises(TypeError, match="Resistive is not the slope"):
        StochasticEquilibriumPropagation().init(Resistive(4, 3, key=key), key=key)
    StochasticEquilibriumPropagation().init(Initialized(Hopfield(net(key))), key=key)
    with pytest.raises(TypeError, match="model is a Linear; pass"):
        StochasticEquilibriumPropagation().init(eqx.nn.Linear(4, 3, key=key), key=key)
