"""Discrete target propagation: layers tell each other signs, and learn from targets for what is behind the signs.

    h_1 = f(W_1 x + b_1),   h_l = f(W_l s(h_{l-1}) + b_l),   s = sign or step
    t_{L-1} = h_{L-1} - eta dC/dh_{L-1},   t_{l-1} = h_{l-1} - g_l(h_l) + g_l(t_l),   g_l(h) = f(V_l s(h) + c_l)
    f_l learns ||h_l - t_l||^2,   f_L learns C
    g_l learns ||g_l(f_l(h_{l-1} + e)) - (h_{l-1} + e)||^2,   e ~ N(0, noise^2 / (1 + steps / noise_halving)^2)

The slope of s is zero, so backprop teaches nothing to a layer below one. A target needs no slope: it crosses
wherever it changes the sign of a unit.

Source: Lee, Zhang, Fischer and Bengio 2015.

Exact limit: where no unit of t_l has another sign than in h_l, t_{l-1} = h_{l-1}, and so on down.
"""

import dataclasses
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Key, PyTree

from ..._checks import positive
from ...contract import Batch, Card, Credit, DataInfo, Learner, Needs
from ...nets import Chain, Series, layers
from ._layerwise import ears
from ._rule import LayerTargets


class DiscreteTargetPropagation(LayerTargets):
    """Difference target propagation between layers that transmit the sign or the step of their activity only.

    Use it where connections carry bits. An inverse g_l hears its layer as f_l hears the one below, through a
    sign or a step where there is one. The last hidden layer is heard as it is by the output layer, where the
    cost's gradient begins. Such a chain is built with an activation of its own between layers:

        ap.nets.mlp(784, 500, "sign", 500, 10, key=key)

    The optimizer moves the inverses, `learner.feedback`, beside the model, and takes a rate for each as with
    `DifferenceTargetPropagation`. The memory counts the steps.

    Args:
        target_step: eta, how far the last hidden layer's target lies down the cost's gradient, above 0. A unit
            changes its sign only if its own step is larger than its activity.
        noise: standard deviation of the Gaussian noise on the inverses' training input at the start, in the
            units of the activities, 0 or more.
        noise_halving: number of steps after which the noise has fallen to half, above 0; it falls to a third
            after twice as many, and so on. The default is the published 50 epochs of 500 batches; where inverses
            and layers are trained in turns (`training.in_turns`) an epoch has twice as many steps.
        reduction: the cost that `target_step` multiplies the gradient of: the batch's `"mean"`, as published,
            with which an example's own step is `target_step` / batch size; or `"sum"`, each example's own.
        init_inverse: initialiser of the inverses' weights, by name (see `nets.initialiser`).
        loss: the cost, by name or as a `Loss`.

    Raises:
        ValueError: a number is out of its range, or a name is unknown.

    References:
        Lee, Zhang, Fischer & Bengio. Difference target propagation. ECML-PKDD, 2015.
    """

    target_step: float = 27.97
    noise: float = 0.5
    noise_halving: float = 25_000.0

    card: ClassVar[Card] = Card(
        name="Difference target propagation, discrete transmission",
        family="targets",
        needs=Needs.CHAIN,
        source=("lee2015",),
        dossier=("S27",),
        local=True,
        weight_transport=False,
        phases=2,
        derivatives=True,
        limit="no change below a layer whose target has the signs of its activity",
    )

    def __check_init__(self):
        """Refuse a half-life that is not positive."""
        positive("noise_halving", self.noise_halving)

    def accept(self, model: PyTree) -> PyTree:
        """Return `model` if its layers transmit signs or steps, and have continuous activity behind them.

        Raises:
            TypeError: no layer does, the output layer hears only them, or a layer has no continuous activity;
                the message says how to build the chain or what to choose instead.
        """
        model = super().accept(model)
        if not any(map(ears, layers(model))):
            raise TypeError(
                "DiscreteTargetPropagation is for layers that transmit signs, and none here does; pass "
                "ap.nets.mlp(784, 500, 'sign', 500, 10, key=key), choose DifferenceTargetPropagation for continuous "
                "transmission, or StraightThrough for hard units"
            )
        return model

    def init(self, model: PyTree, *, data: DataInfo | None = None, key: Key[Array, ""]) -> Learner:
        """Draw one inverse g_l for each layer between the first and the last, and begin to count steps."""
        learner = super().init(model, data=data, key=key)
        return dataclasses.replace(learner, memory=jnp.zeros((), jnp.int32))

    def draw_inverses(self, model: Chain, key: Key[Array, ""], *, linear: bool = False) -> list[Series]:
        """One fresh g_l, l = 2 ... L-1, that hears h_l as f_l hears h_{l-1}."""
        maps = super().draw_inverses(model, key, linear=linear)
        return [Series((*ears(f), *g.stages)) for f, g in zip(layers(model)[1:-1], maps, strict=True)]

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return each layer's own gradient, and each inverse's; `inverse_loss` says how well they invert."""
        noise = self.noise / (1 + learner.memory / self.noise_halving)
        now = eqx.tree_at(lambda rule: rule.noise, self, noise)
        return dataclasses.replace(LayerTargets.credit(now, learner, batch, key=key), memory=learner.memory + 1)
