"""Difference target propagation: the inverse's own error is taken out of the target.

    t_{L-1} = h_{L-1} - eta dC/dh_{L-1},   t_{l-1} = h_{l-1} - g_l(h_l) + g_l(t_l)
    f_l learns ||f_l(h_{l-1}) - t_l||^2,   f_L learns C
    g_l learns ||g_l(f_l(h_{l-1} + e)) - (h_{l-1} + e)||^2,   e ~ N(0, noise^2)

If t_l = h_l then t_{l-1} = h_{l-1}, however bad the inverse. To first order the target is an improvement
wherever the largest eigenvalue of (I - f'g')^T (I - f'g') is below one; see `diagnose.inverse_condition`.

Sources: Lee, Zhang, Fischer and Bengio 2015.

Exact limit: with g_l = f_l^{-1} it is target propagation; in a linear network with g_l(h) = B_l h it is
feedback alignment.
"""

from typing import ClassVar, Literal

import equinox as eqx
from jaxtyping import Array, Key, PyTree

from ..._checks import choose
from ...contract import Batch, Card, Credit, DataInfo, Learner, Needs
from ...nets import Series
from ._rule import LayerTargets


class DifferenceTargetPropagation(LayerTargets):
    """Difference target propagation: targets through learned inverses, corrected for the inverses' errors.

    Use it to train deep nets without backpropagating derivatives from layer to layer: every layer, forward or
    backward, learns from a target of its own. Accuracy is close to backprop's on dense nets and falls behind on
    deep convolutional ones. A step costs about twice backprop's.

    The optimizer moves the inverses, `learner.feedback`, beside the model; the published experiments use
    RMSprop, at another rate for the inverses:

        optax.partition({"model": optax.rmsprop(0.015), "inverses": optax.rmsprop(0.005)}, ("model", "inverses"))

    They also train inverses and layers in turns, for an epoch each: `training.in_turns` makes such an optimizer.

    Args:
        target_step: eta, how far the last hidden layer's target lies down the cost's gradient, above 0.
        noise: standard deviation of the Gaussian noise on the inverses' training input, in the units of the
            activities, 0 or more.
        reduction: the cost that `target_step` multiplies the gradient of: the batch's `"mean"`, as published,
            with which an example's own step is `target_step` / batch size; or `"sum"`, each example's own.
        inverse: `"learned"`; or `"fixed-linear"`, g_l(h) = B_l h with B_l as it was drawn, which needs no
            inverse to be trained and leaves the derivative of the layer above out of the target.
        init_inverse: initialiser of the inverses' weights, by name (see `nets.initialiser`).
        loss: the cost, by name or as a `Loss`.

    Raises:
        ValueError: a number is out of its range, or a name is unknown.

    References:
        Lee, Zhang, Fischer & Bengio. Difference target propagation. ECML-PKDD, 2015.
    """

    inverse: Literal["learned", "fixed-linear"] = eqx.field(default="learned", static=True)

    card: ClassVar[Card] = Card(
        name="Difference target propagation",
        family="targets",
        needs=Needs.CHAIN,
        source=("lee2015",),
        dossier=("S26",),
        local=True,
        weight_transport=False,
        phases=2,
        derivatives=True,
        limit="target propagation with exact inverses; feedback alignment with fixed ones in a linear net",
    )

    def __check_init__(self):
        """Refuse an unknown kind of inverse."""
        choose("inverse", self.inverse, ("learned", "fixed-linear"))

    def init(self, model: PyTree, *, data: DataInfo | None = None, key: Key[Array, ""]) -> Learner:
        """Draw one inverse g_l for each layer between the first and the last."""
        if self.inverse == "learned":
            return super().init(model, data=data, key=key)
        fixed = self.draw_inverses(self.accept(model), key, linear=True)
        return Learner(model, memory=fixed)

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return each layer's own gradient, and each inverse's; `inverse_loss` says how well they invert."""
        if self.inverse == "learned":
            return super().credit(learner, batch, key=key)
        h, loss, output, targets = self.propose(learner, batch)
        update = eqx.filter_grad(self.forward_cost)(learner.model, h, targets, batch)
        return Credit(loss, output, (update, None), learner.memory)

    def inverses_of(self, learner: Learner) -> list[Series]:
        """The inverses g_2 ... g_{L-1} of a learner: fixed ones lie in its memory."""
        return learner.feedback if self.inverse == "learned" else learner.memory
