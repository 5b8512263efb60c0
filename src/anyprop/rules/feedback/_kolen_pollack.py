"""Kolen-Pollack: forward and feedback weights get the same increments and decay, and so become the same.

    delta_L = dC/da_L,   delta_l = f'(a_l) * (B_{l+1}^T delta_{l+1}),   A_l = outer(delta_l, h_{l-1})
    dW_l = A_l + lambda W_l,   dB_l = A_l + lambda B_l

Under gradient descent at rate eta the difference obeys W - B <- (1 - eta lambda) (W - B): the increments
cancel, and what the two were drawn as is forgotten. (Some accounts have the error of a unit in the place of
A; an increment of a weight is the outer product of that error and the activity below.)

Sources: Kolen and Pollack 1994; Akrout, Wilson, Humphreys, Lillicrap and Tweed 2019.

Exact limit: with B = W it is backprop with weight decay, and stays so.
"""

from typing import ClassVar

import equinox as eqx
from jaxtyping import Array, Float, Key, PyTree

from ..._checks import choose, non_negative
from ...contract import Batch, Card, Credit, DataInfo, Learner, Needs, Rule
from ...nets import INITIALISERS, affines, initialiser
from ._transport import draw_like, transported_gradient


class KolenPollack(Rule):
    """Kolen-Pollack: feedback weights that learn to be the forward ones, from the same increments.

    Use it for backprop's accuracy without weight transport, on deep nets too. It costs what backprop costs,
    and twice its parameters: the optimizer moves `learner.feedback` beside the model.

    Under `optax.sgd(rate)`, W - B shrinks by exactly 1 - rate * decay a step. An optimizer that rescales
    gradients also rescales the decay, differently in W and B: with Adam pass `decay=0` and let
    `optax.adamw(rate, weight_decay=...)` decay both, and W - B shrinks by 1 - rate * weight_decay a step.

    Args:
        decay: lambda, weight decay of W and B, 0 or more. Biases and normalisations do not decay. With 0, as
            in the published code, W - B stays as drawn, and the two align only as their common part grows.
        init_feedback: initialiser of the feedback weights, by name (see `nets.initialiser`).
        loss: the cost, by name or as a `Loss`.

    Raises:
        ValueError: `decay` is negative, or `init_feedback` is unknown.

    References:
        Kolen & Pollack. Backpropagation without weight transport. ICNN, 1994.
        Akrout, Wilson, Humphreys, Lillicrap & Tweed. Deep learning without weight transport. NeurIPS, 2019.
    """

    decay: float = 1e-4
    init_feedback: str = eqx.field(default="glorot-normal", static=True)

    card: ClassVar[Card] = Card(
        name="Kolen-Pollack",
        family="feedback",
        needs=Needs.CHAIN,
        source=("akrout2019", "kolen1994"),
        dossier=("S23",),
        local=True,
        weight_transport=False,
        phases=2,
        derivatives=True,
        limit="backprop with weight decay when B = W, which it approaches",
    )

    def __check_init__(self):
        """Refuse a negative decay and an unknown initialiser."""
        non_negative("decay", self.decay)
        choose("init_feedback", self.init_feedback, INITIALISERS)

    def init(self, model: PyTree, *, data: DataInfo | None = None, key: Key[Array, ""]) -> Learner:
        """Draw one B for each weight above the first layer's, to be learned."""
        del data
        return Learner(self.accept(model), feedback=draw_like(model, initialiser(self.init_feedback), key))

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return the update whose errors came down through B, and the same increments for B."""
        del key
        model, feedback = learner.model, learner.feedback
        loss, output, update, increments = transported_gradient(self.loss, model, feedback, batch)
        dW = [A.weight + self.decay * site.weight for A, site in zip(affines(update), affines(model), strict=True)]
        dB = [A + self.decay * B for A, B in zip(increments, feedback, strict=True)]
        update = eqx.tree_at(lambda model: [site.weight for site in affines(model)], update, dW)
        return Credit(loss, output, (update, dB), learner.memory)

    def feedback_weights(self, learner: Learner) -> list[Float[Array, "..."]]:
        """Return B."""
        return learner.feedback
