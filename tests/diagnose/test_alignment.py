import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import anyprop as ap
from anyprop.diagnose import alignment, estimate, feedback_alignment_angles


def problem(*sizes: int, **options) -> tuple[ap.nets.Chain, ap.Batch]:
    key_model, key_x = jax.random.split(jax.random.key(1))
    x = jax.random.normal(key_x, (6, sizes[0]))
    return ap.nets.mlp(*sizes, key=key_model, **options), ap.Batch(x, jnp.arange(6) % sizes[-1])


class Turned(ap.Backprop):
    """The gradient, its last layer turned round and its first one at 60 degrees to itself."""

    def credit(self, learner, batch, *, key):
        credit = super().credit(learner, batch, key=key)
        first, middle, last = credit.grads[0].stages
        w = first.weight
        across = jnp.zeros_like(w).at[0, 0].set(w[0, 1]).at[0, 1].set(-w[0, 0])
        size = jnp.sqrt(jnp.sum(w**2) + jnp.sum(first.bias**2))
        first = eqx.tree_at(lambda s: s.weight, first, w + jnp.sqrt(3.0) * size * across / jnp.linalg.norm(across))
        turned = eqx.tree_at(lambda m: m.stages, credit.grads[0], (first, middle, jax.tree.map(jnp.negative, last)))
        return eqx.tree_at(lambda c: c.grads, credit, (turned, None))


def test_known_angles_layer_by_layer(x64, key):
    net, batch = problem(5, 4, 4, 3)
    rule = Turned()
    angles = alignment(rule, rule.init(net, key=key), batch, key=key)
    assert list(angles) == ["1 Dense", "2 Dense", "3 Dense", "all"]
    np.testing.assert_allclose([angles["1 Dense"], angles["2 Dense"], angles["3 Dense"]], [60, 0, 180], atol=1e-9)


def test_backprop_is_at_zero_degrees_even_in_single_precision(key):
    net, batch = problem(5, 4, 3)
    rule = ap.Backprop()
    angles = alignment(rule, rule.init(net, key=key), batch, key=key)
    assert all(a == 0 for a in angles.values())


def test_angle_is_nan_where_the_gradient_is_zero(key):
    net, batch = problem(5, 4, 3, activation="sign")
    rule = ap.Backprop()
    angles = alignment(rule, rule.init(net, key=key), batch, key=key)
    assert jnp.isnan(angles["1 Dense"])
    assert angles["2 Dense"] == 0


def test_it_runs_compiled_and_over_seeds(key):
    rule = ap.FeedbackAlignment()
    _, batch = problem(5, 4, 3)

    def angles(key):
        net = ap.nets.mlp(5, 4, 3, key=key)
        return alignment(rule, rule.init(net, key=key), batch, key=key)

    keys = jax.random.split(key, 3)
    together = jax.jit(jax.vmap(angles))(keys)
    apart = [angles(k)["1 Dense"] for k in keys]
    np.testing.assert_allclose(together["1 Dense"], apart, rtol=1e-3)


def test_a_model_that_is_no_chain_is_read_array_by_array(key):
    class Linear(eqx.Module):
        inner: eqx.nn.Linear

        def __call__(self, x):
            return jax.vmap(self.inner)(x)

    _, batch = problem(5, 3)
    rule = ap.Backprop()
    learner = rule.init(Linear(eqx.nn.Linear(5, 3, key=key)), key=key)
    assert list(alignment(rule, learner, batch, key=key)) == ["inner.weight", "inner.bias", "all"]


def test_averaging_draws_brings_a_noisy_update_nearer(key):
    class Noisy(ap.Backprop):
        def credit(self, learner, batch, *, key):
            credit = super().credit(learner, batch, key=key)
            leaves, treedef = jax.tree.flatten(credit.grads)
            keys = jax.random.split(key, len(leaves))
            noisy = [g + jax.random.normal(k, g.shape) for g, k in zip(leaves, keys, strict=True)]
            return eqx.tree_at(lambda c: c.grads, credit, jax.tree.unflatten(treedef, noisy))

    net, batch = problem(5, 4, 3)
    rule = Noisy()
    learner = rule.init(net, key=key)
    one, many = (alignment(rule, learner, batch, key=key, draws=n)["all"] for n in (1, 4000))
    assert many < 10 < one


def test_feedback_angles(key):
    net, _ = problem(5, 4, 4, 3)
    rule = ap.FeedbackAlignment()
    aligned = ap.Learner(net, memory=[2 * net.stages[1].weight, -net.stages[2].weight])
    angles = feedback_alignment_angles(rule, aligned)
    assert list(angles) == ["2 Dense", "3 Dense"]
    np.testing.assert_allclose(list(angles.values()), [0, 180], atol=1e-3)


def test_a_rule_without_feedback_weights_has_no_such_angles(key):
    net, _ = problem(5, 4, 3)
    rule = ap.Backprop()
    assert feedback_alignment_angles(rule, rule.init(net, key=key)) == {}


@pytest.mark.parametrize("measure", [alignment, estimate])
def test_labels_are_checked(measure, key):
    net, batch = problem(5, 3)
    rule, outside = ap.Backprop(), ap.Batch(batch.x, batch.y + 1)
    learner = rule.init(net, key=key)
    with pytest.raises(ValueError, match=r"^y has labels from 1 to 3, but the network has 3 outputs"):
        measure(rule, learner, outside, key=key)
    # What is being traced has no numbers to look at.
    assert "all" in eqx.filter_eval_shape(lambda batch: alignment(rule, learner, batch, key=key), outside)


def test_draws_are_checked(key):
    net, batch = problem(5, 3)
    rule = ap.Backprop()
    with pytest.raises(ValueError, match="draws"):
        alignment(rule, rule.init(net, key=key), batch, key=key, draws=0)
