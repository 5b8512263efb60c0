"""Weight perturbation against the gradient, the theory of its variance, and a model without a derivative."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import pytest

from anyprop.contract import Batch
from anyprop.losses import SquaredError
from anyprop.nets import mlp
from anyprop.rules.exact import Backprop
from anyprop.rules.perturbation import WeightPerturbation


def flat(tree):
    return jax.flatten_util.ravel_pytree(tree)[0]


def problem(*sizes, examples=6):
    """A net, a batch for it, and the exact gradient of the squared error."""
    net = mlp(*sizes, key=jax.random.key(1))
    x = jax.random.normal(jax.random.key(2), (examples, sizes[0]))
    y = jax.random.normal(jax.random.key(3), (examples, sizes[-1]))
    learner = Backprop(loss="squared-error").init(net, key=jax.random.key(0))
    gradient = Backprop(loss="squared-error").credit(learner, Batch(x, y), key=jax.random.key(0)).grads
    return learner, Batch(x, y), flat(gradient)


def estimates(rule, learner, batch, draws):
    """One flat update for each of `draws` keys, and the costs that rule saw fall."""

    def one(key):
        credit = rule.credit(learner, batch, key=key)
        return flat(credit.grads), credit.metrics["improvement"]

    return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(4), draws))


@pytest.mark.parametrize("antithetic", [False, True])
def test_mean_is_the_gradient(x64, antithetic):
    learner, batch, gradient = problem(4, 3, 2)
    rule = WeightPerturbation(sigma=1e-3, antithetic=antithetic, loss="squared-error")
    updates, _ = estimates(rule, learner, batch, 5000)
    ratios = updates @ gradient / (gradient @ gradient)  # (dW g)^2 has mean 1 and variance 2
    assert abs(ratios.mean() - 1) < 3 * np.sqrt(2 / len(ratios))
    assert np.std(ratios) == pytest.approx(np.sqrt(2), rel=0.1)


def test_literal_step_is_the_gradient_times_the_variance(x64, key):
    learner, batch, _ = problem(4, 2)
    settings = {"sigma": 0.02, "draws": 3, "loss": "squared-error"}
    literal = WeightPerturbation(form="literal", **settings).credit(learner, batch, key=key).grads
    estimate = WeightPerturbation(form="gradient", **settings).credit(learner, batch, key=key).grads
    np.testing.assert_allclose(flat(literal), 0.02**2 * flat(estimate), rtol=1e-12)


@pytest.mark.parametrize("sizes", [(3, 2), (24, 5)])
def test_cosine_with_the_gradient_falls_with_the_number_of_weights(x64, sizes):
    learner, batch, gradient = problem(*sizes)
    rule = WeightPerturbation(sigma=1e-4, loss="squared-error")
    updates, _ = estimates(rule, learner, batch, 4000)
    tolerance = 3 * np.sqrt(2 / len(updates))
    # A random direction has E[cos^2] = 1 / n; the estimate's mean over its root mean square length, which
    # sets the rate at which it may be followed, is 1 / sqrt(n + 2).
    n = len(gradient)
    lengths = jnp.linalg.norm(updates, axis=1)
    along = updates @ gradient / jnp.linalg.norm(gradient)
    assert jnp.sqrt(jnp.mean((along / lengths) ** 2)) == pytest.approx(n**-0.5, rel=tolerance)
    assert jnp.mean(along) / jnp.sqrt(jnp.mean(lengths**2)) == pytest.approx((n + 2) ** -0.5, rel=tolerance)


def test_pairs_see_no_curvature_and_draws_average(x64):
    # The squared error of a linear net is quadratic, so L(W - dW) - L(W + dW) is 2 dL/dW dW at any sigma.
    learner, batch, gradient = problem(5, 3)
    n, sigma, draws = len(gradient), 3.0, 4

    def variance(**settings):
        rule = WeightPerturbation(sigma=sigma, loss="squared-error", **settings)
        updates, _ = estimates(rule, learner, batch, 4000)
        return jnp.mean(jnp.sum((updates - gradient) ** 2, 1)) / jnp.sum(gradient**2)

    assert variance(antithetic=True, draws=draws) == pytest.approx((n + 1) / draws, rel=0.1)
    assert variance() > 3 * (n + 1)


def test_keeps_improvements_only(x64):
    learner, batch, _ = problem(4, 3, 2)
    rule = WeightPerturbation(sigma=0.1, form="improvements", loss="squared-error")
    cost = lambda learner: jnp.mean(SquaredError()(learner.model(batch.x), batch.y))  # noqa: E731
    optimizer = optax.sgd(1.0)
    credit_of = jax.jit(rule.credit)
    kept = 0
    for key in jax.random.split(jax.random.key(5), 30):
        credit = credit_of(learner, batch, key=key)
        updates, _ = optimizer.update(credit.grads, optimizer.init(learner.params))
        new = learner.apply(updates, credit.memory)
        if credit.metrics["improvement"] > 0:
            kept += 1
            assert cost(learner) - cost(new) == pytest.approx(float(credit.metrics["improvement"]))
        else:
            assert jnp.array_equal(flat(new.params), flat(learner.params))
        learner = new
    assert 0 < kept < 30


def test_trains_a_device_without_a_derivative():
    # jax.pure_callback has no derivative: what it calls could be a measurement.
    def device(weights, x):
        shape = jax.ShapeDtypeStruct((len(x), 1), x.dtype)
        return jax.pure_callback(lambda w, x: np.tanh(np.asarray(x) @ np.asarray(w)), shape, weights, x)

    x = jax.random.normal(jax.random.key(1), (32, 3))
    batch = Batch(x, jnp.tanh(x @ jnp.array([[1.0], [-2.0], [0.5]])))
    model = jax.tree_util.Partial(device, jnp.zeros((3, 1)))
    with pytest.raises(ValueError, match="Pure callbacks do not support"):
        jax.grad(lambda w: device(w, x).sum())(jnp.zeros((3, 1)))

    rule = WeightPerturbation(sigma=0.01, draws=4, antithetic=True, loss="squared-error")
    optimizer = optax.sgd(0.3)
    learner = rule.init(model, key=jax.random.key(0))

    @jax.jit
    def step(learner, key):
        credit = rule.credit(learner, batch, key=key)
        updates, _ = optimizer.update(credit.grads, optimizer.init(learner.params))
        return learner.apply(updates, credit.memory), credit.loss

    losses = []
    for key in jax.random.split(jax.random.key(2), 60):
        learner, loss = step(learner, key)
        losses.append(float(loss))
    assert losses[-1] < 0.05 * losses[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigma": 0.0}, "sigma must be a finite number above zero"),
        ({"draws": 0}, "draws must be an integer of at least 1"),
        ({"form": "improvements", "draws": 2}, "judges one change at a time"),
        ({"form": "improvements", "antithetic": True}, "judges one change at a time"),
    ],
)
def test_refuses_hyperparameters_without_meaning(settings, message):
    with pytest.raises(ValueError, match=message):
        WeightPerturbation(**settings)


def test_refuses_what_has_nothing_to_train(key):
    with pytest.raises(TypeError, match="nothing to train"):
        WeightPerturbation().init(jnp.tanh, key=key)
    with pytest.raises(TypeError, match="must be callable"):
        WeightPerturbation().init(jnp.ones(3), key=key)


def test_refuses_an_unknown_form(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users run without the type checker
    with pytest.raises(ValueError, match="form='litteral' is unknown; pass one of: literal"):
        WeightPerturbation(form="litteral")
