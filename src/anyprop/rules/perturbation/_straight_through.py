"""Straight-through estimator: hard units on the way up, a pretended slope on the way down.

    up:    h = sign(a),  1[a > 0],  or a sample 1[u < sigmoid(a)]
    down:  dh/da := 1  (identity),   sigma'(a)  (derivative),   or  1[|a| <= 1]  (window)

The rest is backprop: delta_l = (dh/da)_l * (W_{l+1}^T delta_{l+1}),  dW_l = outer(delta_l, h_{l-1}).

Source: Hinton 2012; Bengio, Leonard and Courville 2013.

Exact limit: it is the gradient of the network whose hidden units are h + slope(a) * (a - a0), linearised
around the a0 and h of the hard pass.
"""

from collections.abc import Callable
from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from ..._checks import choose
from ...contract import Batch, Card, Credit, Learner, Needs, Rule
from ...nets import Chain, has_hard_units, sites, wire
from .._straight import StraightUnit, straighten
from ._stochastic import draw, example_of, hidden_traces

SLOPES: dict[str, Callable[[Array], Array]] = {
    "identity": jnp.ones_like,
    "derivative": lambda a: jax.nn.sigmoid(a) * jax.nn.sigmoid(-a),
    "window": lambda a: (jnp.abs(a) <= 1).astype(a.dtype),
}
"""dh/da that the backward pass pretends, by the estimator's name."""


class StraightThrough(Rule):
    """Straight-through estimator: backprop through hard or sampled units as if they had a slope.

    Use it as the baseline for binary and stochastic networks. It costs what backprop costs and is biased;
    on one hidden layer its sign is usually right, and the bias grows with depth. `"window"` keeps saturated
    units from drifting further, `"derivative"` follows the slope of the unit's mean when it is sampled.

    `Credit.output`, and the loss, are those of the hard pass, sampled if `stochastic`. A sampled network's
    model is mean-field when it predicts.

    Args:
        estimator: the pretended dh/da: `"identity"`, 1; `"derivative"`, sigma'(a) of the logistic function
            sigma; or `"window"`, 1 where |a| <= 1 and else 0.
        stochastic: sample hidden layers that have a sigmoid as Bernoulli units, a fresh sample each batch.
            Signs and steps are hard in either case, the last layer's too, and those that are a stage of their
            own, such as `Activate("sign")`.
        loss: the cost, by name or as a `Loss`.

    Raises:
        ValueError: `estimator` is unknown.

    References:
        Hinton. Neural networks for machine learning, lecture 9c. Coursera, 2012.
        Bengio, Leonard & Courville. Estimating or propagating gradients through stochastic neurons for
        conditional computation. arXiv:1308.3432, 2013.
    """

    estimator: Literal["identity", "derivative", "window"] = eqx.field(default="identity", static=True)
    stochastic: bool = eqx.field(default=False, static=True)

    card: ClassVar[Card] = Card(
        name="Straight-through estimator",
        family="perturbation",
        needs=Needs.CHAIN,
        source=("bengio2013", "hinton2012"),
        dossier=("S11",),
        local=False,
        weight_transport=True,
        phases=2,
        derivatives=False,
        limit="backprop through the surrogate that has the pretended slope",
    )

    def __check_init__(self):
        """Refuse an unknown estimator."""
        choose("estimator", self.estimator, SLOPES)

    def accept(self, model: PyTree) -> PyTree:
        """Return `model` if it has hidden layers to pass straight through.

        Raises:
            TypeError: it is differentiable everywhere; the message says what to pass instead.
        """
        model = super().accept(model)
        hidden_traces(model, example_of(model))  # An Elman layer refuses to be recorded, and says what to pass.
        hidden = [site.activation for site in sites(model)[:-1]]
        if hidden and self.stochastic and jax.nn.sigmoid not in hidden:
            raise TypeError(
                "StraightThrough(stochastic=True) samples sigmoid hidden layers, and this chain has none; "
                "build it with activation='sigmoid', or pass stochastic=False to train sign or step units"
            )
        if hidden and not self.stochastic and not has_hard_units(model):
            raise TypeError(
                "StraightThrough is for hidden layers without a derivative, and all of this chain's have "
                "one; build it with activation='sign' or 'step', pass stochastic=True to sample sigmoid "
                "layers, or choose Backprop"
            )
        return model

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return the gradient that the pretended slopes give."""

        def cost(model: Chain) -> tuple[Array, Array]:
            output = self.straighten(model, batch.x, key)(batch.x)
            return jnp.mean(self.loss(output, batch.y)), output

        (loss, output), update = eqx.filter_value_and_grad(cost, has_aux=True)(learner.model)
        return Credit(loss, output, (update, None), learner.memory)

    def straighten(self, model: Chain, x: Float[Array, "batch ..."], key: Key[Array, ""]) -> Chain:
        """Return `model` with a straight-through unit at every hard or sampled place; `x` sizes the noise."""
        slope = SLOPES[self.estimator]
        if self.stochastic:
            *hidden, _ = sites(model)
            sampled = [
                StraightUnit(slope, noise) if site.activation is jax.nn.sigmoid else None
                for site, noise in zip(hidden, draw(model, x, "bernoulli", key), strict=True)
            ]
            model = wire(model, [*sampled, None])
        return straighten(model, slope)
