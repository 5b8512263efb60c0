"""Checks of learning: means over examples, a loss that falls, layers that all learn in the right direction."""

import jax
import jax.numpy as jnp
import numpy as np

from ..contract import Batch, exact_gradient
from ..diagnose import estimate
from ._case import Case, Inapplicable, Training, compiled, require, require_equal, step

FALL = 0.8
"""The loss must fall below this fraction of where it began."""

STANDARD_ERRORS = 3.0
"""The one-sided 1 % point of Student's t with 7 degrees of freedom, for `SEEDS` = 8 independent runs."""

DRAWS = (2_000, 32_000)
"""Draws of a random rule: the first number, and the second if that leaves its mean too uncertain."""


def duplication_keeps_the_mean(case: Case) -> None:
    """A batch in which every example appears twice gives the same update, for random rules in the mean.

    Guards against sums in the place of means, and against one reward for a whole batch where each example
    has its own, which divides the mean update by the size of the batch.
    """
    learner, batch = case.learner(), case.examples()
    twice = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), batch)
    if not case.random:
        key = jax.random.key(1)
        once = case.credit(learner, batch, key)
        require_equal(case.credit(learner, twice, key).grads, once.grads, "the batch twice over")
        return

    if not any(map(np.any, jax.tree.leaves(exact_gradient(case.rule.loss, learner.model, batch)[2]))):
        raise Inapplicable("the exact gradient is zero: there is no direction to compare mean updates along")

    @compiled
    def measure(batch: Batch, seed: int, draws: int) -> tuple[dict, dict]:
        found = estimate(case.rule, learner, batch, key=jax.random.key(seed), draws=draws, chunk=100)
        return found.scale, found.scale_error

    for draws in DRAWS:
        (one, one_error), (two, two_error) = (measure(b, s, draws) for s, b in enumerate((batch, twice)))
        error = {name: np.hypot(one_error[name], two_error[name]) for name in one}
        if error["all"] < 0.1 * abs(one["all"]):
            break
    else:
        raise Inapplicable(f"{DRAWS[-1]} draws leave the mean update uncertain by more than a tenth")
    for name in one:
        if np.isfinite(one[name]):  # else the exact gradient of this layer is zero
            require(
                abs(one[name] - two[name]) <= 5 * error[name] + 1e-9 * abs(one[name]),  # a layer may be exact
                f"with every example twice, the mean update of {name} along the gradient goes from {one[name]:.3g} to "
                f"{two[name]:.3g}, with a standard error of {error[name]:.2g}",
            )


def loss_falls(case: Case) -> None:
    """Adam on the rule's gradients learns a small batch, at the best of three learning rates.

    Guards against a wrong sign or scale.
    """
    losses = case.training.losses
    steps = losses.shape[-1]
    start, ends = losses[..., 0].mean(), losses[..., -steps // 10 :].mean((1, 2))
    end = np.nanmin(ends)
    require(end < FALL * start, f"the loss goes from {start:.3g} to {end:.3g} at best, in {steps} steps")


def every_layer_learns(case: Case) -> None:
    """Every layer's update is non-zero and, over the course of learning, has a positive cosine with the gradient.

    Guards against hidden layers whose update is zero, or noise, while the output layer learns by itself.
    The mean cosine of each independent run is one observation, and their mean must be above zero beyond
    chance. Random feedback weights do not align at once, and not from any start: it is while weights grow
    from small ones that they do (Refinetti et al. 2021). So a rule may show it from weights of the usual
    size or from a tenth of that. Where the exact gradient is zero itself, below hard units, only the
    first half is asked.
    """
    usual = _astray(case.training)
    if usual:
        small = _astray(case.training_from_small_weights)
        require(not small, f"{usual}; from small weights, {small}")


def _astray(training: Training) -> str:
    """Which layer does not learn in the right direction, in words; at the lowest rate, which follows it longest."""
    for name, moves in training.moves.items():
        if np.any(moves[0].max(1) == 0):
            return f"the update of {name} is zero"
        if np.any(training.gradients[name][0]):
            cosines = np.nanmean(training.cosines[name][0], axis=1)
            mean, error = cosines.mean(), cosines.std(ddof=1) / np.sqrt(len(cosines))
            if not mean > STANDARD_ERRORS * error:
                return (
                    f"the update of {name} has a mean cosine of {mean:.3f} with the exact gradient, with a standard "
                    f"error of {error:.3f}: not positive beyond chance"
                )
    return ""


def all_parameters_move(case: Case) -> None:
    """One step changes every array of the learner's parameters, at each depth.

    Guards against a layer that the update leaves out, at the ends or when the net is deep.
    """
    if not case.depths:
        raise Inapplicable("its network has one depth only")
    for depth in case.depths:
        learner = case.learner(depth=depth)
        credit = case.credit(learner, case.examples(), jax.random.key(1))
        after = jax.tree.leaves(step(learner, credit).params)
        for (path, old), new in zip(jax.tree_util.tree_flatten_with_path(learner.params)[0], after, strict=True):
            require(
                not np.array_equal(old, new),
                f"a step leaves {jax.tree_util.keystr(path)} as it was, in a net of depth {depth}",
            )
