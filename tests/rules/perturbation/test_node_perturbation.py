"""Node perturbation against the gradient and the theory of its variance, and its two forms compared."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from anyprop.contract import Batch
from anyprop.losses import SquaredError
from anyprop.nets import elman, mlp
from anyprop.rules._noise import draw, perturb
from anyprop.rules.exact import Backprop
from anyprop.rules.perturbation import NodePerturbation


def flat(tree):
    return jax.flatten_util.ravel_pytree(tree)[0]


def problem(*sizes, examples=4):
    """A tanh net, a batch for it, and the exact gradient of the squared error."""
    net = mlp(*sizes, key=jax.random.key(1))
    x = jax.random.normal(jax.random.key(2), (examples, sizes[0]))
    y = jax.random.normal(jax.random.key(3), (examples, sizes[-1]))
    learner = Backprop(loss="squared-error").init(net, key=jax.random.key(0))
    gradient = Backprop(loss="squared-error").credit(learner, Batch(x, y), key=jax.random.key(0)).grads
    return learner, Batch(x, y), flat(gradient)


def estimates(rule, learner, batch, draws):
    one = lambda key: flat(rule.credit(learner, batch, key=key).grads)  # noqa: E731
    return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(4), draws))


def test_mean_is_the_gradient_and_layers_in_turn_have_the_lower_variance(x64):
    learner, batch, gradient = problem(4, 5, 5, 2)
    variance = {}
    for layers in ("together", "in-turn"):
        rule = NodePerturbation(sigma=1e-3, layers=layers, loss="squared-error")
        updates = estimates(rule, learner, batch, 4000)
        error = updates.mean(0) - gradient
        standard_error = updates.std(0) / np.sqrt(len(updates))
        assert jnp.all(jnp.abs(error) < 4.5 * standard_error)
        ratios = updates @ gradient / (gradient @ gradient)
        assert abs(ratios.mean() - 1) < 3 * ratios.std() / np.sqrt(len(updates))
        variance[layers] = updates.var(0).sum()
    assert variance["in-turn"] < 0.7 * variance["together"]


def test_mean_at_any_sigma_is_the_gradient_of_the_noisy_cost(x64):
    # Holds for the inputs h~ of the noisy pass, not for those of a clean one. The same noises make both
    # estimates, which takes most of the sampling error out of their difference.
    learner, batch, _ = problem(3, 4, 2)
    rule = NodePerturbation(sigma=1.0, loss="squared-error")

    def noisy_cost(model, noises):
        return jnp.mean(SquaredError()(perturb(model, noises)(batch.x), batch.y))

    def both(key):
        update = flat(rule.credit(learner, batch, key=key).grads)
        pathwise = jax.grad(noisy_cost)(learner.model, draw(learner.model, batch.x, key))
        return update, flat(pathwise)

    updates, pathwise = jax.jit(jax.vmap(both))(jax.random.split(jax.random.key(5), 20_000))
    error = jnp.mean(updates, 0) - jnp.mean(pathwise, 0)
    standard_error = jnp.sqrt((updates.var(0) + pathwise.var(0)) / len(updates))
    assert jnp.all(jnp.abs(error) < 4 * standard_error)


@pytest.mark.parametrize(("sigma", "noises"), [(0.5, 1), (1e-3, 4)])
def test_second_moment_of_a_linear_layer(x64, sigma, noises):
    n, m, examples, draws = 6, 3, 8, 8000
    net = mlp(n, m, bias=False, key=jax.random.key(1))
    x = jax.random.normal(jax.random.key(2), (examples, n))
    y = jax.random.normal(jax.random.key(3), (examples, m))
    rule = NodePerturbation(sigma=sigma, draws=noises, loss="squared-error")
    learner = rule.init(net, key=jax.random.key(0))
    updates = estimates(rule, learner, Batch(x, y), draws)

    # Of one example: (e z + sigma |z|^2 / 2) z x^T with z ~ N(0, 1). Examples have noises of their own, so
    # only their variances add up; a reward that is the batch's mean would multiply them.
    e = net(x) - y
    own = jnp.sum(x**2, 1) * ((m + 2) * jnp.sum(e**2, 1) + sigma**2 / 4 * m * (m + 2) * (m + 4))
    mean = jnp.sum(x**2, 1) * jnp.sum(e**2, 1)
    expected = (jnp.sum(own - mean) / noises + jnp.sum((x.T @ e) ** 2)) / examples**2
    squares = jnp.sum(updates**2, 1)
    assert abs(squares.mean() - expected) < 3 * squares.std() / np.sqrt(draws)
    assert squares.std() / np.sqrt(draws) < 0.02 * expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigma": -1.0}, "sigma must be a finite number above zero"),
        ({"draws": 0}, "draws must be an integer of at least 1"),
        ({"layers": "in-turns"}, "layers='in-turns' is unknown; pass one of: in-turn"),
    ],
)
def test_refuses_hyperparameters_without_meaning(settings, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users run without the type checker
    with pytest.raises(ValueError, match=message):
        NodePerturbation(**settings)


def test_refuses_models_whose_units_it_cannot_perturb(key):
    with pytest.raises(TypeError, match="one activity a layer"):
        NodePerturbation().init(elman(3, 4, 2, key=key), key=key)
    with pytest.raises(TypeError, match="choose WeightPerturbation"):
        NodePerturbation().init(jax.tree_util.Partial(jnp.dot, jnp.ones((3, 2))), key=key)
