"""What the feedback rules cost, in floating-point operations of the compiled step, not in seconds."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from anyprop.contract import Batch
from anyprop.nets import mlp
from anyprop.rules.exact import Backprop
from anyprop.rules.feedback import (
    DirectFeedbackAlignment,
    FeedbackAlignment,
    IndirectFeedbackAlignment,
    KolenPollack,
    SignSymmetry,
    WeightMirror,
)

EXAMPLES = 50


def operations(rule, *sizes):
    key = jax.random.key(0)
    learner = rule.init(mlp(*sizes, key=key), key=key)
    arrays, static = eqx.partition(learner, eqx.is_array)
    data = Batch(jnp.ones((EXAMPLES, sizes[0])), jnp.arange(EXAMPLES) % sizes[-1])
    step = jax.jit(lambda arrays, data, key: rule.credit(eqx.combine(arrays, static), data, key=key))
    return step.lower(arrays, data, key).compile().cost_analysis()["flops"]


@pytest.mark.parametrize(
    "rule",
    [
        FeedbackAlignment(),
        DirectFeedbackAlignment(),
        IndirectFeedbackAlignment(),
        SignSymmetry(),
        KolenPollack(),
    ],
)
def test_a_step_costs_what_backprop_costs(rule):
    assert operations(rule, 784, 500, 10) <= 1.05 * operations(Backprop(), 784, 500, 10)


def test_direct_feedback_is_cheaper_in_a_deep_net():
    """It replaces the products of hidden layers with hidden layers by products with ten outputs."""
    assert operations(DirectFeedbackAlignment(), 784, 300, 300, 300, 10) < 0.9 * operations(
        Backprop(), 784, 300, 300, 300, 10
    )


def test_a_mirror_batch_costs_a_pass_and_an_update_of_the_layers_above_the_first():
    sizes = (784, 300, 300, 10)
    above = 2 * 2 * EXAMPLES * (300 * 300 + 300 * 10)
    extra = operations(WeightMirror(), *sizes) - operations(FeedbackAlignment(), *sizes)
    assert above < extra < 1.3 * above
