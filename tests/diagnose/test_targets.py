import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

import anyprop as ap
from anyprop.contract import Learner
from anyprop.diagnose._targets import improved_targets, inverse_condition, target_angles
from anyprop.nets import Chain, Conv, Dense, Flatten, Series, layers, mlp
from anyprop.rules.targets._layerwise import activities

RULE = ap.DifferenceTargetPropagation(target_step=1e-4, reduction="sum")


def batch_for(key, model, examples=5):
    x = jax.random.normal(key, (examples, *model.input_shape))
    return ap.Batch(x, jnp.arange(examples) % model.output_shape[-1])


def dense(weight, activation="identity"):
    layer = Dense(*weight.shape, activation=activation, key=jax.random.key(0))
    return eqx.tree_at(lambda d: d.weight, layer, weight)


def linear(key, scale=1.0):
    """Square linear layers 4-4-4-4-3, and inverses that are exact but for `scale`."""
    keys = jax.random.split(key, 4)
    model = mlp(4, 4, 4, 4, 3, activation="identity", init="orthogonal", key=keys[0])
    mixing = [jnp.eye(4) + 0.3 * jax.random.normal(k, (4, 4)) for k in keys[1:3]]
    model = eqx.tree_at(lambda m: [s.weight for s in m.stages[1:3]], model, mixing)
    return model, [Series((dense(scale * jnp.linalg.inv(w)),)) for w in mixing]


def explicit_jacobians(f, g, below, above):
    """F and G for each example, formed entry by entry."""
    size = above[0].size
    forth = jax.vmap(jax.jacobian(lambda h: f(h[None]).ravel()))(below).reshape(len(below), size, -1)
    back = jax.vmap(jax.jacobian(lambda h: g(h[None]).ravel()))(above).reshape(len(below), -1, size)
    return forth, back


def curved(key):
    return mlp(4, 6, 5, 7, 3, key=key)


def image(key):
    """From image to image, and from image to vector."""
    keys = jax.random.split(key, 4)
    first = Conv(1, 2, 3, activation="tanh", key=keys[0])
    second = Conv(2, 3, 3, stride=2, activation="tanh", key=keys[1])
    head = [Flatten(), Dense(12, 5, activation="tanh", key=keys[2]), Dense(5, 3, key=keys[3])]
    return Chain([first, second, *head], input_shape=(4, 4, 1))


@pytest.mark.parametrize("build", [curved, image])
def test_the_condition_is_the_eigenvalue_of_the_explicit_matrix(x64, build):
    key = jax.random.key(1)
    model = build(key)
    batch = batch_for(key, model)
    learner = RULE.init(model, key=key)
    found = jax.jit(lambda: inverse_condition(RULE, learner, batch, key=key, iterations=3000))()
    h = activities(model, batch.x)
    assert len(found.mean) == len(learner.feedback) == 2
    for name, f, g, below, above in zip(
        found.mean, layers(model)[1:-1], learner.feedback, h[1:-2], h[2:-1], strict=True
    ):
        forth, back = explicit_jacobians(f, g, below, above)
        missed = jnp.eye(above[0].size) - forth @ back
        expected = jnp.linalg.eigvalsh(missed.mT @ missed)[:, -1]
        np.testing.assert_allclose(found.mean[name], expected.mean(), rtol=1e-5)
        np.testing.assert_allclose(found.largest[name], expected.max(), rtol=1e-5)


def test_an_exact_inverse_has_eigenvalue_zero_and_all_its_targets_improve(x64, key):
    model, inverses = linear(key)
    batch = batch_for(key, model)
    learner = ap.Learner(model, inverses)
    condition = inverse_condition(RULE, learner, batch, key=key)
    assert list(condition.largest) == ["2 Dense", "3 Dense"]
    assert all(value < 1e-20 for value in condition.largest.values())
    improved = improved_targets(RULE, learner, batch)
    assert list(improved.cheaper) == ["1 Dense", "2 Dense", "3 Dense"]
    assert list(improved.reached) == list(condition.mean)
    assert all(value == 1 for value in [*improved.reached.values(), *improved.cheaper.values()])


@pytest.mark.parametrize(("scale", "improves"), [(1.9, 1), (2.1, 0), (-0.1, 0)])
def test_targets_improve_where_the_eigenvalue_is_below_one(x64, scale, improves):
    """g = scale f^{-1} misses by (1 - scale) of the displacement; a negative scale sends it the wrong way."""
    key = jax.random.key(2)
    model, inverses = linear(key, scale)
    batch = batch_for(key, model)
    learner = ap.Learner(model, inverses)
    condition = inverse_condition(RULE, learner, batch, key=key)
    np.testing.assert_allclose(list(condition.mean.values()), (1 - scale) ** 2, rtol=1e-9)
    improved = improved_targets(RULE, learner, batch)
    assert all(value == improves for value in improved.reached.values())
    assert improved.cheaper["2 Dense"] == (scale > 0)


def test_examples_are_counted_one_by_one(x64):
    """One example of five is sent the wrong way."""
    key = jax.random.key(2)
    model, inverses = linear(key)
    batch = batch_for(key, model)
    wrong = jnp.ones(5).at[3].set(-1)

    class Turned(ap.DifferenceTargetPropagation):
        def down(self, g, above, target, below):
            return below + wrong[:, None] * (g(target) - g(above))

    rule = Turned(target_step=1e-4, reduction="sum")
    improved = improved_targets(rule, ap.Learner(model, inverses), batch)
    np.testing.assert_allclose(list(improved.cheaper.values()), [1, 0.8, 1])  # the lowest is turned twice
    np.testing.assert_allclose(list(improved.reached.values()), 0.8)


def test_transposed_jacobians_pull_like_gradients_and_inverses_like_gauss_newton(x64):
    key = jax.random.key(3)
    model, inverses = linear(key)
    batch = batch_for(key, model)
    transposed = [Series((dense(f.stages[0].weight.T),)) for f in layers(model)[1:-1]]
    like_backprop = target_angles(RULE, ap.Learner(model, transposed), batch, damping=1e-12)
    like_newton = target_angles(RULE, ap.Learner(model, inverses), batch, damping=1e-12)
    assert list(like_newton.backprop) == ["1 Dense", "2 Dense", "3 Dense"]
    np.testing.assert_allclose(list(like_backprop.backprop.values()), 0, atol=1e-6)
    np.testing.assert_allclose(list(like_newton.gauss_newton.values()), 0, atol=1e-6)
    for other in (like_backprop.gauss_newton, like_newton.backprop):
        assert other["1 Dense"] > other["2 Dense"] > 5
        np.testing.assert_allclose(other["3 Dense"], 0, atol=1e-6)


def test_angles_in_a_curved_net_are_those_of_the_written_out_displacements(x64):
    key = jax.random.key(4)
    model = mlp(4, 6, 5, 3, key=key)
    batch = batch_for(key, model)
    learner = RULE.init(model, key=key)
    found = target_angles(RULE, learner, batch, damping=0.01)
    h, _, _, targets = RULE.propose(Learner(model, learner.feedback), batch)
    jacobian, _ = explicit_jacobians(layers(model)[1], learner.feedback[0], h[1], h[2])
    move, top = targets[0] - h[1], targets[1] - h[2]

    def degrees(u, v):
        cosine = jnp.sum(u * v, 1) / jnp.linalg.norm(u, axis=1) / jnp.linalg.norm(v, axis=1)
        return jnp.degrees(jnp.arccos(cosine)).mean()

    gradient = jnp.einsum("bij,bi->bj", jacobian, top)  # the top displacement is down the gradient
    damped = jnp.linalg.solve(jacobian @ jacobian.mT + 0.01 * jnp.eye(5), top[..., None])[..., 0]
    np.testing.assert_allclose(found.backprop["1 Dense"], degrees(move, gradient), rtol=1e-6)
    newton = degrees(move, jnp.einsum("bij,bi->bj", jacobian, damped))
    np.testing.assert_allclose(found.gauss_newton["1 Dense"], newton, rtol=1e-6)


def test_fixed_inverses_are_found_and_everything_compiles_over_seeds(key):
    rule = ap.DifferenceTargetPropagation(inverse="fixed-linear", reduction="sum")
    batch = batch_for(key, curved(key))

    def measure(key):
        learner = rule.init(curved(key), key=key)
        condition = inverse_condition(rule, learner, batch, key=key, iterations=5)
        return condition, improved_targets(rule, learner, batch), target_angles(rule, learner, batch)

    found = jax.jit(jax.vmap(measure))(jax.random.split(key, 3))
    assert all(leaf.shape == (3,) and bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(found))


def test_a_net_without_hidden_layers_has_nothing_to_measure(key):
    model = mlp(4, 3, key=key)
    batch = batch_for(key, model)
    learner = RULE.init(model, key=key)
    assert inverse_condition(RULE, learner, batch, key=key).mean == {}
    assert improved_targets(RULE, learner, batch).cheaper == {}
    assert target_angles(RULE, learner, batch).backprop == {}


def test_rules_without_layer_targets_are_refused(key, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users run without the type checker
    model, rule = mlp(4, 5, 3, key=key), ap.Backprop()
    learner, batch = rule.init(model, key=key), batch_for(key, model)
    for measure in (lambda *a: inverse_condition(*a, key=key), improved_targets, target_angles):
        with pytest.raises(TypeError, match="pass TargetPropagation"):
            measure(rule, learner, batch)
        with pytest.raises(TypeError, match=r"learner has not the 0 inverses .* pass rule\.init"):
            measure(RULE, learner, batch)


def test_arguments_are_checked(key):
    model = mlp(4, 5, 3, key=key)
    learner, batch = RULE.init(model, key=key), batch_for(key, model)
    with pytest.raises(ValueError, match="iterations"):
        inverse_condition(RULE, learner, batch, key=key, iterations=0)
    with pytest.raises(ValueError, match="damping"):
        target_angles(RULE, learner, batch, damping=0.0)
