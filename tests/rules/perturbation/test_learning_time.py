"""How long gradient descent, node and weight perturbation take to learn a linear map.

The learning curves of Werfel, Xie and Seung 2005: a linear net of N inputs and M outputs imitates a linear
teacher on standard normal inputs, one example a step, each rule at its optimal learning rate. The squared
distance to the teacher, in the mean over runs, then shrinks in each step by

    1 - 1 / (N + 2),   1 - 1 / ((M + 2)(N + 2)),   1 - 1 / ((M N + 2)(N + 2)),

so learning times are as 1 : M + 2 : M N + 2.
"""

import jax
import jax.numpy as jnp
import pytest

from anyprop.contract import Batch
from anyprop.nets import mlp
from anyprop.rules.exact import Backprop
from anyprop.rules.perturbation import NodePerturbation, WeightPerturbation


def learning_time(rule, inputs, outputs, rate, *, steps, runs, key):
    """Steps in which the mean squared distance to the teacher falls by a factor e.

    Args:
        rule: how the learner's weights find their way, with a squared error.
        inputs: N.
        outputs: M.
        rate: learning rate.
        steps: examples in a run.
        runs: independent runs, over which the distance is averaged.
        key: random key.
    """
    # The teacher is zero: only the distance to it enters the error.
    net = mlp(inputs, outputs, bias=False, key=key)

    def run(key):
        def step(learner, key):
            key_x, key_rule = jax.random.split(key)
            batch = Batch(jax.random.normal(key_x, (1, inputs)), jnp.zeros((1, outputs)))
            credit = rule.credit(learner, batch, key=key_rule)
            updates = jax.tree.map(lambda g: -rate * g, credit.grads)
            return learner.apply(updates, credit.memory), None

        learner, _ = jax.lax.scan(step, rule.init(net, key=key), jax.random.split(key, steps))
        return jnp.sum(learner.model.stages[0].weight ** 2)

    distances = jax.jit(jax.vmap(run))(jax.random.split(key, runs))
    return steps / -jnp.log(jnp.mean(distances) / jnp.sum(net.stages[0].weight ** 2))


def test_learning_times_are_as_one_to_outputs_to_weights(x64):
    inputs, outputs = 10, 3
    factors = {
        Backprop(loss="squared-error"): 1,
        NodePerturbation(sigma=1e-4, loss="squared-error"): outputs + 2,
        WeightPerturbation(sigma=1e-4, loss="squared-error"): outputs * inputs + 2,
    }
    for rule, factor in factors.items():
        expected = factor * (inputs + 2)
        time = learning_time(rule, inputs, outputs, 1 / expected, steps=expected, runs=300, key=jax.random.key(0))
        assert time == pytest.approx(expected, rel=0.2)
