"""Angles: between a rule's update and the exact gradient, and between feedback and forward weights."""

from jaxtyping import Array, Float, Key

from ..contract import Batch, Learner, Rule
from ..nets import affines_above_first, sites
from ._estimate import checked_gradient, mean_update
from ._layers import angle, by_layer, site_names


def alignment(
    rule: Rule, learner: Learner, batch: Batch, *, key: Key[Array, ""], draws: int = 1
) -> dict[str, Float[Array, ""]]:
    """The angle in degrees between a rule's update and the exact gradient, layer by layer.

    Below 90 degrees a small enough step descends. It can be jitted, and vmapped over seeds.

    Args:
        rule: the rule.
        learner: what it trains.
        batch: examples; the exact gradient is that of the rule's loss on them.
        key: random key for the rule.
        draws: how many independent updates of a random rule to average first.

    Returns:
        One angle for each layer of a chain (`"1 Conv"`, `"2 Dense"`, weights and bias together), or for
        each array of any other model, by its path; and `"all"`. NaN where the update or the exact
        gradient is zero, as the gradient is below units with a zero derivative.

    Raises:
        ValueError: `draws` is not a positive integer, or `batch.y`, where it is not being traced, does not fit the
            loss and the network.
    """
    gradient = checked_gradient(rule, learner, batch)
    update = by_layer(learner.model, mean_update(rule, learner, batch, key=key, draws=draws))
    return {name: angle(update[name], gradient[name]) for name in gradient}


def feedback_alignment_angles(rule: Rule, learner: Learner) -> dict[str, Float[Array, ""]]:
    """The angle in degrees between the weights that carry errors down and the forward ones, layer by layer.

    Args:
        rule: the rule.
        learner: what it trains.

    Returns:
        One angle for each dense and convolutional layer but the first, below which no error is
        needed. Empty for a rule without feedback weights; a layer whose feedback has another shape
        than its weight, as direct feedback has, is left out.
    """
    feedback = rule.feedback_weights(learner)
    if feedback is None:
        return {}
    names = dict(zip(map(id, sites(learner.model)), site_names(learner.model), strict=True))
    pairs = zip(affines_above_first(learner.model), feedback, strict=True)
    return {names[id(site)]: angle(b.ravel(), site.weight.ravel()) for site, b in pairs if b.shape == site.weight.shape}
