"""Whole sweeps in turns: the feedback of a rule learns on one pass over the data, the network on the next."""

import jax.numpy as jnp
import optax

from .._checks import count
from ._refusals import check_optimizer


def in_turns(
    model: optax.GradientTransformation, feedback: optax.GradientTransformation, *, steps: int
) -> optax.GradientTransformation:
    """An optimizer that moves either what a rule learns besides, or the network, for whole sweeps in turns.

    Use it where the network should learn from feedback that has caught up with it, as difference target propagation
    is published: its inverses are trained for an epoch, then its layers for another. With half the steps for each it
    takes twice the epochs. To train both in every step, pass
    `optax.partition({"model": model, "feedback": feedback}, ("model", "feedback"))` instead.

        steps = len(data.train) // batch_size
        optimizer = ap.training.in_turns(optax.rmsprop(0.015), optax.rmsprop(0.005), steps=steps)
        run = ap.fit(ap.DifferenceTargetPropagation(), net, data, optimizer=optimizer, epochs=20)

    Args:
        model: moves `learner.model`; its state stays as it is while it waits.
        feedback: moves `learner.feedback`, such as inverses; it goes first.
        steps: how many steps a turn has, at least 1; a sweep is the number of batches in an epoch.

    Returns:
        An optimizer of `learner.params`.

    Raises:
        TypeError: `model` or `feedback` is no optimizer.
        ValueError: `steps` is not positive.

    References:
        Lee, Zhang, Fischer & Bengio. Difference target propagation. ECML-PKDD, 2015.
    """
    check_optimizer("model", model)
    check_optimizer("feedback", feedback)
    count("steps", steps)

    def turn(inner: optax.GradientTransformation, number: int) -> optax.GradientTransformation:
        return optax.conditionally_mask(inner, lambda step, **_: jnp.asarray(step) // steps % 2 == number)

    return optax.partition({"model": turn(model, 1), "feedback": turn(feedback, 0)}, ("model", "feedback"))
