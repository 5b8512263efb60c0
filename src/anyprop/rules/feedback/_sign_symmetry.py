"""Sign symmetry: the error travels down through weights that share only the sign of the forward ones.

    delta_L = dC/da_L,   delta_l = f'(a_l) * (B_{l+1}^T delta_{l+1}),   dW_l = outer(delta_l, h_{l-1})

    uSF    B = s sign(W)            uniform magnitudes
    brSF   B = s |R_t| sign(W)      magnitudes drawn anew for each batch, R_t ~ N(0, 1)
    frSF   B = s |R| sign(W)        magnitudes drawn once

with the scale s = sqrt(2 / (fan_in + fan_out)), or 1 as first published.

Sources: Liao, Leibo and Poggio 2016; Xiao, Chen, Liao and Poggio 2018.

Exact limit: where every |W| = s, uSF is backprop; frSF is for any W with |R| = |W| / s.
"""

import math
from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from ..._checks import choose
from ...contract import Batch, Card, Credit, DataInfo, Learner, Needs, Rule
from ...nets import affines_above_first
from ._transport import draw_like, transported_gradient


class SignSymmetry(Rule):
    """Sign symmetry: feedback weights that follow the signs of the forward weights, not their sizes.

    Use it where feedback alignment fails: on deep convolutional and residual nets it comes close to
    backprop, at the cost of transporting one bit a weight. It costs what backprop costs. The batch-manhattan
    update that it was first published with, the sign of the batch's gradient, is the optimizer
    `optax.sign_sgd`.

    Args:
        variant: how large the feedback weights are: `"uSF"` all alike, `"brSF"` random and drawn anew for
            each batch, `"frSF"` random and fixed.
        scale: unit of those sizes: `"glorot"`, sqrt(2 / (fan_in + fan_out)), at which B starts with the
            spread of Glorot's weights; or `"one"`, the literal rule, whose errors grow with the square root
            of a layer's width on their way down, so that deep nets need the batch-manhattan update.
        exact_output: carry the error through the last layer's own weight, as Xiao et al. do by default.
        loss: the cost, by name or as a `Loss`.

    Raises:
        ValueError: `variant` or `scale` is unknown.

    References:
        Liao, Leibo & Poggio. How important is weight symmetry in backpropagation? AAAI, 2016.
        Xiao, Chen, Liao & Poggio. Biologically-plausible learning algorithms can scale to large datasets.
        ICLR, 2019.
    """

    variant: Literal["uSF", "brSF", "frSF"] = eqx.field(default="uSF", static=True)
    scale: Literal["glorot", "one"] = eqx.field(default="glorot", static=True)
    exact_output: bool = eqx.field(default=False, static=True)

    card: ClassVar[Card] = Card(
        name="Sign symmetry",
        family="feedback",
        needs=Needs.CHAIN,
        source=("liao2016", "xiao2018"),
        dossier=("S22",),
        local=False,
        weight_transport=True,  # of the signs
        phases=2,
        derivatives=True,
        limit="backprop when B = W: uSF where all |W| are the scale",
    )

    def __check_init__(self):
        """Refuse unknown names."""
        choose("variant", self.variant, ("uSF", "brSF", "frSF"))
        choose("scale", self.scale, ("glorot", "one"))

    def init(self, model: PyTree, *, data: DataInfo | None = None, key: Key[Array, ""]) -> Learner:
        """Draw the fixed magnitudes that frSF needs."""
        del data
        self.accept(model)
        return Learner(model, memory=_magnitudes(model, key) if self.variant == "frSF" else None)

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return the update whose errors came down through B."""
        magnitudes = _magnitudes(learner.model, key) if self.variant == "brSF" else learner.memory
        feedback = self._feedback(learner.model, magnitudes)
        loss, output, update, _ = transported_gradient(self.loss, learner.model, feedback, batch)
        return Credit(loss, output, (update, None), learner.memory)

    def feedback_weights(self, learner: Learner) -> list[Float[Array, "..."]]:
        """Return B; of brSF its mean over draws, which is uSF's B times E|R| = sqrt(2 / pi)."""
        feedback = self._feedback(learner.model, learner.memory)
        return [math.sqrt(2 / math.pi) * B for B in feedback] if self.variant == "brSF" else feedback

    def _feedback(self, model: PyTree, magnitudes: list[Array] | None) -> list[Array]:
        weights = [site.weight for site in affines_above_first(model)]
        feedback = [self._scale(W) * jnp.sign(W) for W in weights]
        if magnitudes is not None:
            feedback = [R * B for R, B in zip(magnitudes, feedback, strict=True)]
        return [*feedback[:-1], *weights[-1:]] if self.exact_output else feedback

    def _scale(self, weight: Array) -> float:
        # The last two axes of a dense or convolutional weight are (in, out).
        fan_in, fan_out = weight.size / weight.shape[-1], weight.size / weight.shape[-2]
        return math.sqrt(2 / (fan_in + fan_out)) if self.scale == "glorot" else 1.0


def _magnitudes(model: PyTree, key: Key[Array, ""]) -> list[Array]:
    """|R|, R ~ N(0, 1), for each weight that carries an error."""
    return draw_like(model, lambda key, shape: jnp.abs(jax.random.normal(key, shape)), key)
