"""Indirect feedback alignment: the error enters at the first layer and travels up the forward weights.

    e = dC/dh_L,   delta_1 = f'(a_1) * (B^T e),   delta_l = f'(a_l) * (W_l delta_{l-1})
    delta_L = f'(a_L) * e,   dW_l = outer(delta_l, h_{l-1})

delta_l is how h_l would move if a_1 moved along B^T e: one forward-mode derivative of the network gives all
of them, through pooling, normalisation and skips too.

Source: Nøkland 2016.

Exact limit: with one hidden layer and B = W_2 it is backprop.
"""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from ..._checks import choose
from ...contract import Batch, Card, Credit, DataInfo, Learner, Needs, Rule, exact_gradient
from ...nets import INITIALISERS, Site, Wiring, assemble, initialiser, local_update, sites, wire
from .._traces import trace_shapes
from ._projection import draw_projections, output_error


class Shift(Wiring):
    """Add a given shift to the site's pre-activation.

    Args:
        shift: the shift, one row an example.
    """

    shift: Float[Array, "batch units"]

    def __call__(self, site: Site, h: Float[Array, "batch ..."]) -> tuple[Array, Array]:
        """Return a + shift and f(a + shift)."""
        a = site.drive(h)
        a = a + self.shift.reshape(a.shape)
        return a, site.activation(a)


class IndirectFeedbackAlignment(Rule):
    """Indirect feedback alignment: the first layer alone gets the output error, the network carries it up.

    Use it to ask how little feedback a network needs: one random matrix, whatever the depth. It costs about
    what backprop costs. The last layer learns from its own exact error. A normalisation takes out of the
    passing error whatever would move its own scale and offset: where a group is one channel and no activation
    follows, these do not learn.

    Its feedback weight joins outputs and the first layer, so it corresponds to no forward weight and
    `feedback_weights` is None.

    Args:
        init_feedback: initialiser of the feedback weight, by name (see `nets.initialiser`), as if it were
            the weight of a dense layer with the first layer's units as inputs. The default is the paper's
            range, 1 / sqrt(units of the first layer).
        loss: the cost, by name or as a `Loss`.

    Raises:
        ValueError: `init_feedback` is unknown.

    References:
        Nøkland. Direct feedback alignment provides learning in deep neural networks. NeurIPS, 2016.
    """

    init_feedback: str = eqx.field(default="uniform-by-fan-in", static=True)

    card: ClassVar[Card] = Card(
        name="Indirect feedback alignment",
        family="feedback",
        needs=Needs.CHAIN,
        source=("nokland2016",),
        dossier=("S21",),
        local=True,
        weight_transport=False,
        phases=2,
        derivatives=True,
        limit="backprop with one hidden layer when B = W",
    )

    def __check_init__(self):
        """Refuse an unknown initialiser."""
        choose("init_feedback", self.init_feedback, INITIALISERS)

    def init(self, model: PyTree, *, data: DataInfo | None = None, key: Key[Array, ""]) -> Learner:
        """Draw the fixed B from the outputs to the first layer."""
        del data
        first = trace_shapes(self.accept(model))[0].drive.shape[1:]
        (feedback,) = draw_projections([first], model, initialiser(self.init_feedback), key)
        return Learner(model, memory=feedback)

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return the update whose errors came up from the first layer."""
        del key
        model, own = learner.model, sites(learner.model)
        loss, output, gradient = exact_gradient(self.loss, model, batch)
        signal = output_error(self.loss, output, batch) @ learner.memory.T

        def traces(shift: Array) -> tuple:
            return wire(model, [Shift(shift)] + [None] * (len(own) - 1)).record(batch.x)[1]

        recorded, moved = jax.jvp(traces, (jnp.zeros_like(signal),), (signal,))
        updates = [
            local_update(site, trace.input, delta.output)
            for site, trace, delta in zip(own, recorded, moved, strict=True)
        ]
        # Only this layer's part of the exact gradient is used, so a compiled program computes no other.
        output_site = sites(gradient)[-1]
        updates[-1] = (output_site.weight, output_site.bias)
        return Credit(loss, output, (assemble(model, updates), None), learner.memory)
