import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import pytest

import anyprop as ap
from anyprop.contract import Learner
from anyprop.nets import Activate, Chain, Dense, Series, layers, mlp
from anyprop.rules.targets._layerwise import activities

RULES = (ap.TargetPropagation, ap.DifferenceTargetPropagation)


def leaky(a):
    """A nonlinearity that can be inverted everywhere."""
    return a + 0.5 * jnp.tanh(a)


def inverted(b):
    """The inverse of `leaky`, by Newton's method."""
    a = b / 1.5
    for _ in range(30):
        a -= (leaky(a) - b) / (1.5 - 0.5 * jnp.tanh(a) ** 2)
    return a


def invertible(key):
    keys = jax.random.split(key, 4)
    hidden = [Dense(5, 5, activation=leaky, init="orthogonal", key=k) for k in keys[:3]]
    return Chain([*hidden, Dense(5, 3, key=keys[3])])


def exact_inverses(model):
    """g(h) = W^{-1} (f^{-1}(h) - b) for each layer between the first and the last."""

    def undo(layer):
        dense = layer.stages[-1]
        back = jnp.linalg.inv(dense.weight)
        linear = Dense(5, 5, key=jax.random.key(0))
        linear = eqx.tree_at(lambda d: (d.weight, d.bias), linear, (back, -dense.bias @ back))
        return Series((Activate(inverted), linear))

    return [undo(layer) for layer in layers(model)[1:-1]]


def batch_for(key, model, examples=6):
    x = jax.random.normal(key, (examples, *model.input_shape))
    return ap.Batch(x, jnp.arange(examples) % model.output_shape[-1])


@pytest.mark.parametrize("kind", RULES)
def test_with_exact_inverses_targets_are_gauss_newton_and_lower_the_cost(x64, kind):
    key = jax.random.key(1)
    model = invertible(key)
    batch = batch_for(key, model)
    rule = kind(target_step=1e-5, reduction="sum")
    h, loss, _, targets = rule.propose(Learner(model, exact_inverses(model)), batch)
    for i in (2, 1):
        layer = layers(model)[i]
        jacobian = jax.vmap(jax.jacobian(lambda below, f=layer: f(below[None])[0]))(h[i])
        expected = jnp.linalg.solve(jacobian, (targets[i] - h[i + 1])[..., None])[..., 0]
        assert jnp.allclose(targets[i - 1] - h[i], expected, rtol=1e-3, atol=0)
    for i, target in enumerate(targets, start=1):
        above = target
        for layer in layers(model)[i:]:
            above = layer(above)
        assert jnp.all(rule.loss(above, batch.y) < rule.loss(h[-1], batch.y))
    assert jnp.isclose(loss, rule.loss(h[-1], batch.y).mean())


@pytest.mark.parametrize("kind", RULES)
def test_each_layer_learns_from_its_own_target_only(x64, kind):
    """dW_l = 2/B sum_n (h_l - t_l) f'(a_l) h_{l-1}^T, written out for one example's worth of algebra."""
    key = jax.random.key(2)
    model = mlp(4, 6, 5, 3, key=key)
    batch = batch_for(key, model)
    learner = kind(target_step=0.7).init(model, key=key)
    rule = kind(target_step=0.7)
    h, _, _, targets = rule.propose(Learner(model, learner.feedback), batch)
    credit = rule.credit(learner, batch, key=key)
    for i in (0, 1):
        error = 2 * (h[i + 1] - targets[i]) * (1 - h[i + 1] ** 2) / len(batch.x)
        assert jnp.allclose(credit.grads[0].stages[i].weight, h[i].T @ error, rtol=1e-9)
        assert jnp.allclose(credit.grads[0].stages[i].bias, error.sum(0), rtol=1e-9)
    exact = ap.Backprop().credit(ap.Backprop().init(model, key=key), batch, key=key)
    assert jnp.allclose(credit.grads[0].stages[2].weight, exact.grads[0].stages[2].weight, rtol=1e-9)


def test_the_inverses_learn_to_undo_noisy_activity(x64):
    key = jax.random.key(3)
    model = mlp(4, 6, 5, 3, key=key)
    batch = batch_for(key, model)
    rule = ap.DifferenceTargetPropagation(noise=0.3)
    learner = rule.init(model, key=key)
    credit = rule.credit(learner, batch, key=key)
    h = activities(model, batch.x)
    (g,) = learner.feedback
    (e,) = (0.3 * jax.random.normal(k, h[1].shape) for k in jax.random.split(key, 1))
    z = h[1] + e
    above = model.stages[1](z)
    error = 2 * (g(above) - z) * (1 - g(above) ** 2) / len(batch.x)
    (update,) = credit.grads[1]
    assert jnp.allclose(update.stages[1].weight, above.T @ error, rtol=1e-9)
    assert jnp.isclose(credit.metrics["inverse_loss"], jnp.sum((g(above) - z) ** 2) / len(batch.x))


def test_the_published_convention_divides_the_step_by_the_batch(x64):
    key = jax.random.key(4)
    model = mlp(4, 6, 5, 3, key=key)
    batch = batch_for(key, model)
    mean = ap.DifferenceTargetPropagation(target_step=6.0)
    own = ap.DifferenceTargetPropagation(target_step=1.0, reduction="sum")
    learner = mean.init(model, key=key)
    got, expected = (rule.propose(Learner(model, learner.feedback), batch)[3] for rule in (mean, own))
    assert all(jnp.allclose(a, b, rtol=1e-12) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize(
    ("argument", "value"),
    [("target_step", 0.0), ("noise", -0.1), ("reduction", "none"), ("init_inverse", "xavier")],
)
def test_bad_arguments_are_named(kind, argument, value, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users run without the type checker
    with pytest.raises(ValueError, match=argument):
        kind(**{argument: value})


@pytest.mark.parametrize("kind", RULES)
def test_what_has_no_layer_activities_is_refused(kind, key):
    with pytest.raises(TypeError, match="Elman"):
        kind().init(ap.nets.elman(4, 5, 3, steps=2, key=key), key=key)
    with pytest.raises(TypeError, match="chain"):
        kind().init(eqx.nn.Linear(3, 2, key=key), key=key)


@pytest.mark.parametrize("build", [ap.nets.lenet5, ap.nets.convnet, ap.nets.resnet20])
def test_convolutional_nets_learn(build, key):
    model = build(key=key)
    batch = batch_for(key, model, examples=2)
    rule = ap.DifferenceTargetPropagation()
    learner = rule.init(model, key=key)
    credit = eqx.filter_jit(rule.credit)(learner, batch, key=key)
    assert jax.tree.structure(credit.grads) == jax.tree.structure(learner.params)
    assert all(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(credit.grads))
