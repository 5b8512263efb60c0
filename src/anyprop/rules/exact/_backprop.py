"""Backprop: reverse-mode differentiation of the whole network.

    delta_L = dC/da_L,   delta_l = f'(a_l) * (W_{l+1}^T delta_{l+1}),   dW_l = outer(delta_l, h_{l-1})

Source: Rumelhart, Hinton and Williams 1986. On a recurrent network it is backpropagation through time.

Exact limit: it is the gradient, to rounding.
"""

from typing import ClassVar

from jaxtyping import Array, Key

from ...contract import Batch, Card, Credit, Learner, Needs, Rule, exact_gradient


class Backprop(Rule):
    """Backprop: the exact gradient, and the reference that every other rule is measured against.

    Use it as the baseline of a comparison.

    Args:
        loss: the cost, by name or as a `Loss`.

    References:
        Rumelhart, Hinton & Williams. Learning representations by back-propagating errors. Nature, 1986.
    """

    card: ClassVar[Card] = Card(
        name="Backprop",
        family="exact",
        needs=Needs.DIFFERENTIABLE,
        source=("rumelhart1986",),
        dossier=("S01", "S02"),
        local=False,
        weight_transport=True,
        phases=2,
        derivatives=True,
        limit="the gradient",
    )

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return the exact gradient of the batch's mean cost."""
        del key
        loss, output, gradient = exact_gradient(self.loss, learner.model, batch)
        return Credit(loss, output, (gradient, None), learner.memory)
