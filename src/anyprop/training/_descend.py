"""Descent on one fixed batch until the cost stops changing.

    repeat:  W' = W + dW,   dL = L(W) - L(W'),   W = W'
    while |dL| > theta,   with dL = infinity at first

dW is whatever a rule's direction becomes in an Optax optimizer: with `optax.sgd` and `Backprop` or `Newton` these are
the textbook loops of gradient descent and of Newton's method. Random search tries a change, and steps by what it did:

    repeat:  DW ~ N(0, sigma^2),   dL = L(W) - L(W + DW),   W = W + dL DW

A rule that reports what its own change did, as the `improvement` of its credit, stops on that dL: so does
`WeightPerturbation`, and with `form="literal"` and `optax.sgd(1.0)` this is the textbook loop.
"""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from .._checks import choose, count, non_negative
from ..contract import Batch, Learner, Rule
from ._refusals import answer_shape, check_targets


class Descent(eqx.Module):
    """How a descent went.

    Args:
        learner: what was reached.
        losses: the cost before each step and after the last one; NaN beyond.
        steps: number of steps taken.
        converged: whether the cost had stopped changing. It had not where steps ran out or the cost
            became NaN.
    """

    learner: Learner
    losses: Float[Array, " trace"]
    steps: Int[Array, ""]
    converged: Bool[Array, ""]


def descend(
    rule: Rule,
    model: PyTree,
    batch: Batch,
    *,
    optimizer: optax.GradientTransformation,
    threshold: float,
    stop: Literal["running-mean", "literal"] = "running-mean",
    window: int = 100,
    max_steps: int = 10_000,
    key: Key[Array, ""],
) -> Descent:
    """Follow `rule` down the cost of one batch until the cost stops changing.

    Use it to study a rule as an optimisation method: how many steps it takes, and to which point. To train
    on a data set use `fit`.

    Args:
        rule: gives the direction of each step.
        model: the network to start from.
        batch: the examples, the same in every step.
        optimizer: turns directions into steps; `optax.sgd(1.0)` applies them as they are.
        threshold: theta, the change of the cost at or below which it counts as still, in units of the cost. It is the
            change by a step; by what it tried, for a rule that tries one and reports its `improvement`, such as
            `WeightPerturbation`.
        stop: `"literal"` stops at the first change that small, which for a noisy rule may be an unlucky
            perturbation; `"running-mean"` when the last `window` changes are that small on average.
        window: number of steps that the running mean covers, and so the least number of steps it takes.
        max_steps: steps after which to give up.
        key: random key for the rule.

    Raises:
        ValueError: an argument is out of its range, or `batch.y` does not fit the loss and the network.
        TypeError: `rule` cannot train this kind of model, or `batch.x` does not fit it.
    """
    non_negative("threshold", threshold)
    choose("stop", stop, ["running-mean", "literal"])
    count("window", window)
    count("max_steps", max_steps)
    key_init, key_steps = jax.random.split(key)
    learner = rule.init(model, key=key_init)
    check_targets(rule.loss, batch, answer_shape(model, batch.x)[-1])
    remembered = window if stop == "running-mean" else 1
    return _run(rule, learner, batch, optimizer, threshold, remembered, max_steps, key_steps)


@eqx.filter_jit
def _run(
    rule: Rule,
    learner: Learner,
    batch: Batch,
    optimizer: optax.GradientTransformation,
    threshold: float,
    remembered: int,
    max_steps: int,
    key: Key[Array, ""],
) -> Descent:
    dynamic, static = eqx.partition(learner, eqx.is_array)

    def moving(carry: tuple) -> Array:
        _, _, _, changes, _, step = carry
        return (jnp.mean(changes) > threshold) & (step < max_steps)

    def descend_once(carry: tuple) -> tuple:
        dynamic, opt_state, credit, changes, losses, step = carry
        learner = eqx.combine(dynamic, static)
        updates, opt_state = optimizer.update(credit.grads, opt_state, learner.params)
        learner = learner.apply(updates, credit.memory)
        # The next step needs the credit at W' anyway, and L(W') comes with it.
        new = rule.credit(learner, batch, key=jax.random.fold_in(key, step + 1))
        change = credit.metrics.get("improvement", credit.loss - new.loss)
        changes = changes.at[step % remembered].set(jnp.abs(change))
        return (
            eqx.filter(learner, eqx.is_array),
            opt_state,
            new,
            changes,
            losses.at[step + 1].set(new.loss),
            step + 1,
        )

    credit = rule.credit(learner, batch, key=jax.random.fold_in(key, 0))
    changes = jnp.full(remembered, jnp.inf, credit.loss.dtype)
    losses = jnp.full(max_steps + 1, jnp.nan, credit.loss.dtype).at[0].set(credit.loss)
    start = (dynamic, optimizer.init(learner.params), credit, changes, losses, jnp.array(0))
    dynamic, _, _, changes, losses, step = jax.lax.while_loop(moving, descend_once, start)
    return Descent(eqx.combine(dynamic, static), losses, step, jnp.mean(changes) <= threshold)
