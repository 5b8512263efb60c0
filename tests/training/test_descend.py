"""The descent loop: its contraction on a quadratic, and when it stops."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from anyprop import nets
from anyprop.contract import Batch, Credit, Needs, Rule
from anyprop.rules.exact import Backprop, Newton
from anyprop.rules.perturbation import WeightPerturbation
from anyprop.training._descend import descend


def quadratic(curvatures):
    """Inputs on the axes, scaled so that the Hessian of the mean cost is diag(curvatures); best weight 0."""
    n = len(curvatures)
    return Batch(jnp.diag(jnp.sqrt(n * jnp.array(curvatures))), jnp.zeros((n, 1)))


@pytest.mark.parametrize("rate", [0.5, 0.9])
def test_gradient_descent_contracts_at_the_rate_of_the_worst_curvature(rate, x64, key):
    curvatures = np.array([2.0, 1.0, 0.25])
    model = nets.mlp(3, 1, bias=False, key=key)
    reached = descend(
        Backprop(loss="squared-error"), model, quadratic(curvatures),
        optimizer=optax.sgd(rate), threshold=1e-20, stop="literal", max_steps=500, key=key,
    )  # fmt: skip
    assert reached.converged
    steps = int(reached.steps)
    ratio = np.sqrt(reached.losses[steps - 1] / reached.losses[steps - 2])
    np.testing.assert_allclose(ratio, np.max(np.abs(1 - rate * curvatures)), rtol=1e-6)
    weight = (1 - rate * curvatures)[:, None] ** steps * model.stages[0].weight
    np.testing.assert_allclose(reached.learner.model.stages[0].weight, weight, rtol=1e-10, atol=1e-15)


def test_newton_needs_one_step_and_another_to_see_it(x64, key):
    model = nets.mlp(3, 1, bias=False, key=key)
    reached = descend(
        Newton(loss="squared-error"), model, quadratic([2.0, 1.0, 0.25]),
        optimizer=optax.sgd(1.0), threshold=1e-12, stop="literal", max_steps=50, key=key,
    )  # fmt: skip
    assert reached.converged
    assert reached.steps == 2
    assert reached.losses[1] < 1e-25
    assert np.all(np.isnan(reached.losses[3:]))


class Hesitant(Rule):
    """The gradient, but for a pause at every fifth step."""

    card = Backprop.card

    def credit(self, learner, batch, *, key):
        exact = Backprop(loss=self.loss).credit(learner, batch, key=key)
        pause = (learner.memory + 1) % 5 == 0
        grads = jax.tree.map(lambda g: jnp.where(pause, 0.0, g), exact.grads)
        return Credit(exact.loss, exact.output, grads, learner.memory + 1)

    def init(self, model, *, data=None, key):
        learner = super().init(model, data=data, key=key)
        return type(learner)(learner.model, memory=jnp.array(0))


def test_one_small_change_stops_the_literal_loop_and_not_the_running_mean(key):
    assert Hesitant.card.needs is Needs.DIFFERENTIABLE
    settings = {
        "rule": Hesitant(loss="squared-error"),
        "model": nets.mlp(2, 1, bias=False, key=key),
        "batch": quadratic([1.0, 0.5]),
        "optimizer": optax.sgd(0.1),
        "threshold": 1e-7,
        "key": key,
    }
    literal = descend(**settings, stop="literal")
    patient = descend(**settings, window=10)
    assert literal.converged
    assert literal.steps == 5
    assert patient.converged
    assert patient.steps > 50
    changes = np.abs(np.diff(patient.losses[: int(patient.steps) + 1]))
    means = [changes[i - 10 : i].mean() for i in range(10, len(changes) + 1)]
    assert means[-1] <= 1e-7 * (1 + 1e-4)
    assert min(means[:-1]) > 1e-7 * (1 - 1e-4)


def test_random_search_stops_on_what_the_change_did_that_it_tried(x64, key):
    threshold, sigma = 2e-3, 0.3
    model, batch = nets.mlp(3, 1, bias=False, key=key), quadratic([2.0, 1.0, 0.25])
    reached = descend(
        WeightPerturbation(sigma, form="literal", loss="squared-error"), model, batch,
        optimizer=optax.sgd(1.0), threshold=threshold, stop="literal", max_steps=500, key=key,
    )  # fmt: skip

    def cost(weight):
        return np.mean(0.5 * (batch.x @ weight) ** 2)

    def draw(step):
        (own,) = jax.random.split(jax.random.fold_in(jax.random.split(key)[1], step), 1)
        return sigma * jax.tree.leaves(optax.tree.random_like(own, eqx.filter(model, eqx.is_array)))[0]

    # The loop as papers write it.
    weight, steps, change = model.stages[0].weight, 0, np.inf
    while abs(change) > threshold:
        tried = draw(steps)
        change = cost(weight) - cost(weight + tried)
        weight, steps = weight + change * tried, steps + 1
    assert reached.converged
    assert reached.steps == steps
    np.testing.assert_allclose(reached.learner.model.stages[0].weight, weight, rtol=1e-9)


def test_gives_up_where_it_cannot_settle(key):
    settings = {"rule": Backprop(loss="squared-error"), "batch": quadratic([1.0, 0.5]), "key": key}
    model = nets.mlp(2, 1, bias=False, key=key)
    short = descend(**settings, model=model, optimizer=optax.sgd(0.1), threshold=0.0, max_steps=7)
    assert not short.converged
    assert short.steps == 7
    climbing = descend(**settings, model=model, optimizer=optax.sgd(-0.1), threshold=1e-9, stop="literal", max_steps=7)
    assert not climbing.converged
    diverged = descend(**settings, model=model, optimizer=optax.sgd(1e30), threshold=0.0, max_steps=50)
    assert not diverged.converged
    assert diverged.steps < 50


def test_refuses_bad_input(key):
    settings = {
        "rule": Backprop(), "model": nets.mlp(2, 2, key=key), "batch": Batch(jnp.ones((3, 2)), jnp.arange(3)),
        "optimizer": optax.sgd(0.1), "key": key,
    }  # fmt: skip
    with pytest.raises(ValueError, match="threshold must be a finite number, zero or above"):
        descend(**settings, threshold=-1.0)
    with pytest.raises(ValueError, match="window must be an integer of at least 1"):
        descend(**settings, threshold=0.1, window=0)
    with pytest.raises(ValueError, match="max_steps must be an integer of at least 1"):
        descend(**settings, threshold=0.1, max_steps=0)
    with pytest.raises(ValueError, match=r"labels from 0 to 2, but the network has 2 outputs"):
        descend(**settings, threshold=0.1)
