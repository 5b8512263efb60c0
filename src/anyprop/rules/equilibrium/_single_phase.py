"""Predictive coding in a single phase: the errors of a weak nudge, in one sweep from the top down.

    s_k = c_k = W_k rho(s_{k-1}) + b_k             a forward pass, where the feedforward energy rests
    e_L = -beta dC/ds_L                            what a nudge does to the output
    e_k = rho'(s_k) W_{k+1}^T e_{k+1}              where the states would come to rest, to first order in beta
    dE/dW_k / beta = -e_k rho(s_{k-1})^T / beta    the feedforward energy's slope there; beta drops out

Each e_k is -beta dC/ds_k, with C as a function of s_k through the layers above.

Source: Bengio 2017; Whittington and Bogacz 2017.

Exact limit: backprop, to rounding. It is the limit of `PredictiveCoding` as beta -> 0.
"""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from ...contract import Batch, Card, Credit, Learner, Needs, Rule
from ...losses import Loss, SquaredError, as_loss
from ...nets import Chain, has_hard_units, links


class SinglePhase(Rule):
    """Predictive coding's limit of a weak nudge, without settling: the errors travel down once.

    Use it where predictive coding's relaxation is not what is studied: it is what `PredictiveCoding` computes with a
    vanishing `beta` and inference to convergence, at the cost of backprop.

    Args:
        loss: the cost C, by name or as a `Loss`.

    References:
        Whittington & Bogacz. An approximation of the error backpropagation algorithm in a predictive coding network
        with local Hebbian synaptic plasticity. Neural Computation, 2017.
    """

    loss: Loss = eqx.field(default_factory=SquaredError, converter=as_loss, kw_only=True)

    card: ClassVar[Card] = Card(
        name="Single-phase predictive coding",
        family="equilibrium",
        needs=Needs.CHAIN,
        source=("bengio2017", "whittington2017"),
        dossier=("S59",),
        local=True,
        weight_transport=True,
        phases=2,
        derivatives=True,
        limit="backprop",
    )

    def accept(self, model: PyTree) -> Chain:
        """Return `model` if errors pass through it.

        Raises:
            TypeError: it is not a chain, or has a nonlinearity whose derivative is zero.
        """
        chain: Chain = super().accept(model)
        if has_hard_units(chain):
            raise TypeError(
                "SinglePhase cannot pass an error through a sign or a step, whose derivative is zero; pass "
                "activation='tanh' or 'hard-sigmoid'"
            )
        return chain

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return -e_k rho(s_{k-1})^T / beta of every layer, and the like for its other parameters."""
        del key
        below, down = [batch.x], []
        for link in links(learner.model):
            s, back = jax.vjp(link, below[-1])
            below.append(s)
            down.append(back)
        *below, output = below
        errors = [self.loss.error(output, batch.y)]  # -e_L / beta, and so on below
        for back in reversed(down[1:]):
            errors.insert(0, *back(errors[0]))

        def slope(model: Chain) -> Float[Array, ""]:
            layers = zip(links(model), below, errors, strict=True)
            return sum((jnp.vdot(e, link(s)) for link, s, e in layers), start=jnp.zeros(())) / len(output)

        loss = jnp.mean(self.loss(output, batch.y))
        return Credit(loss, output, (eqx.filter_grad(slope)(learner.model), None), learner.memory)
