"""A chain read in layers, as methods read it that give every layer a target of its own.

`layers` cuts a chain behind its nonlinearities, `links` before them:

    layers:  h_l = f_l(h_{l-1}),          h_0 = x,   f_l = sigma_l o W_l
    links:   c_l = W_l sigma_{l-1}(c_{l-1}),   c_0 = x,   sigma_0 = identity

Both are made of the chain's own arrays. So a cost of the form sum_l cost_l(f_l(h_{l-1})), with every h_l a
constant, has a gradient with respect to the *chain* that is layer-local and laid out as an update is.
"""

from collections.abc import Callable, Iterable

import equinox as eqx
from jaxtyping import Array, Float

from ._activations import HARD, identity
from ._chain import Chain, Series
from ._stage import Activate, Flatten, Norm, Site, Stage, Wiring, affines


class Linear(Wiring):
    """A site without its nonlinearity."""

    def __call__(self, site: Site, h: Float[Array, "batch ..."]) -> tuple[Array, Array]:
        """Return a in the place of both a and f(a)."""
        a = site.drive(h)
        return a, a


def layers(model: Chain) -> tuple[Series, ...]:
    """The chain as layers h_l = f_l(h_{l-1}), each with one dense, convolutional or composite stage.

    Normalisation, pooling and activations belong to the layer that they follow. Flattening, and a sign or
    step of its own (`Activate`), belong to the layer that they lead to: they are how it listens, and the
    activity below stays an image, and continuous.
    """

    def follows(stage: Stage) -> bool:
        hard = isinstance(stage, Activate) and stage.activation in HARD
        return not (hard or isinstance(stage, Flatten))

    return _cut(model.stages, follows)


def links(model: Chain) -> tuple[Series, ...]:
    """The chain as links c_l = W_l sigma_{l-1}(c_{l-1}) between pre-activations.

    Normalisation before the nonlinearity belongs to the link that it follows. All else that has no weights
    belongs to the link that it leads to. What follows the last weights belongs to the last link.
    """
    stages: list[Stage] = []
    for stage in model.stages:
        if isinstance(stage, Site) and stage.activation is not identity:
            linear = eqx.tree_at(lambda s: s.wiring, stage, Linear(), is_leaf=lambda leaf: leaf is None)
            stages += [linear, Activate(stage.activation)]
        else:
            stages.append(stage)
    return _cut(stages, lambda stage: isinstance(stage, Norm))


def _cut(stages: Iterable[Stage], follows: Callable[[Stage], bool]) -> tuple[Series, ...]:
    """Series of stages with weights; a stage without joins the one before it if it `follows`, else the next."""
    groups: list[list[Stage]] = []
    leading: list[Stage] = []
    for stage in stages:
        if affines(stage):
            groups.append([*leading, stage])
            leading = []
        elif groups and not leading and follows(stage):
            groups[-1].append(stage)
        else:
            leading.append(stage)
    groups[-1] += leading
    return tuple(Series(tuple(group)) for group in groups)
