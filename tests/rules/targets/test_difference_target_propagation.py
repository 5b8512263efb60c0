import jax
import jax.numpy as jnp
import jaxtyping
import pytest

import anyprop as ap
from anyprop.contract import Learner
from anyprop.nets import affines_above_first, mlp


def batch_for(key, model, examples=6):
    x = jax.random.normal(key, (examples, *model.input_shape))
    return ap.Batch(x, jnp.arange(examples) % model.output_shape[-1])


def test_a_perfect_layer_passes_no_target_down(key):
    """t_l = h_l gives t_{l-1} = h_{l-1}, however bad the inverse."""
    model = mlp(4, 6, 5, 3, key=key)
    rule = ap.DifferenceTargetPropagation()
    (g,) = rule.init(model, key=key).feedback
    above, below = jax.random.normal(key, (2, 5)), jax.random.normal(key, (2, 6))
    assert jnp.allclose(rule.down(g, above, above, below), below, atol=1e-6)


def test_with_fixed_linear_inverses_a_linear_net_learns_by_feedback_alignment(x64):
    """With 2 eta = 1 the factor of ||.||^2 is made up for, and the updates are equal to the last digits."""
    key = jax.random.key(0)
    model = mlp(4, 6, 7, 5, 3, activation="identity", key=key)
    batch = batch_for(key, model)
    rule = ap.DifferenceTargetPropagation(inverse="fixed-linear", target_step=0.5, reduction="sum")
    learner = rule.init(model, key=key)
    credit = rule.credit(learner, batch, key=key)
    # B of the shape of W: the inverse maps down, W maps up. The output layer's own weight carries its error.
    feedback = [g.stages[1].weight.T for g in learner.memory] + [affines_above_first(model)[-1].weight]
    expected = ap.FeedbackAlignment().credit(Learner(model, memory=feedback), batch, key=key)
    for got, want in zip(jax.tree.leaves(credit.grads), jax.tree.leaves(expected.grads), strict=True):
        assert jnp.allclose(got, want, rtol=1e-10, atol=1e-14)


def test_fixed_inverses_stay_as_they_were_drawn(key):
    model = mlp(4, 6, 5, 3, key=key)
    rule = ap.DifferenceTargetPropagation(inverse="fixed-linear")
    learner = rule.init(model, key=key)
    credit = rule.credit(learner, batch_for(key, model), key=key)
    assert learner.feedback is None
    assert credit.grads[1] is None
    for before, after in zip(*map(jax.tree.leaves, (learner.memory, credit.memory)), strict=True):
        assert jnp.array_equal(before, after)


def test_an_unknown_kind_of_inverse_is_named(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users run without the type checker
    with pytest.raises(ValueError, match="inverse="):
        ap.DifferenceTargetPropagation(inverse="exact")
