"""Feedback alignment: the error travels down through fixed random weights.

    delta_L = dC/da_L,   delta_l = f'(a_l) * (B_{l+1}^T delta_{l+1}),   dW_l = outer(delta_l, h_{l-1})

Here B_l has the shape of W_l, so its transpose carries the error, and stays as it was drawn.

Source: Lillicrap, Cownden, Tweed and Akerman 2016.

Exact limit: with B = W it is backprop.
"""

from typing import ClassVar

import equinox as eqx
from jaxtyping import Array, Float, Key, PyTree

from ..._checks import choose
from ...contract import Batch, Card, Credit, DataInfo, Learner, Needs, Rule
from ...nets import INITIALISERS, initialiser
from ._transport import draw_like, transported_gradient


class FeedbackAlignment(Rule):
    """Feedback alignment: backprop with fixed random weights in place of the transposed forward ones.

    Use it to ask how much of backprop survives without weight transport: the forward weights come to
    align with the random ones. It costs what backprop costs. It works on dense and shallow convolutional
    nets and falls behind on deep ones.

    Args:
        init_feedback: initialiser of the feedback weights, by name (see `nets.initialiser`).
        loss: the cost, by name or as a `Loss`.

    Raises:
        ValueError: `init_feedback` is unknown.

    References:
        Lillicrap, Cownden, Tweed & Akerman. Random synaptic feedback weights support error
        backpropagation for deep learning. Nature Communications, 2016.
    """

    init_feedback: str = eqx.field(default="glorot-normal", static=True)

    card: ClassVar[Card] = Card(
        name="Feedback alignment",
        family="feedback",
        needs=Needs.CHAIN,
        source=("lillicrap2016",),
        dossier=("S20",),
        local=True,
        weight_transport=False,
        phases=2,
        derivatives=True,
        limit="backprop when B = W",
    )

    def __check_init__(self):
        """Refuse an unknown initialiser."""
        choose("init_feedback", self.init_feedback, INITIALISERS)

    def init(self, model: PyTree, *, data: DataInfo | None = None, key: Key[Array, ""]) -> Learner:
        """Draw one fixed B for each weight above the first layer's."""
        del data
        feedback = draw_like(self.accept(model), initialiser(self.init_feedback), key)
        return Learner(model, memory=feedback)

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return the update whose errors came down through B."""
        del key
        loss, output, update, _ = transported_gradient(self.loss, learner.model, learner.memory, batch)
        return Credit(loss, output, (update, None), learner.memory)

    def feedback_weights(self, learner: Learner) -> list[Float[Array, "..."]]:
        """Return B."""
        return learner.memory
