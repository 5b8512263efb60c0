"""Forward accumulation: the exact gradient without a backward pass, one tangent pass for each parameter.

    dh_0 = 0,   dh_l = f'(a_l) * (W_l dh_{l-1} + dW_l h_{l-1} + db_l),   g_i = dC for dtheta = e_i

Source: Wengert 1964.

Exact limit: it is the gradient, to rounding.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ...contract import Batch, Card, Credit, Learner, Needs, Rule
from ._flat import along_axes, flatten


class ForwardAccumulation(Rule):
    """Forward accumulation: forward-mode differentiation along each parameter.

    Use it to see what the backward pass saves: it needs no error signal and no stored past, so its memory
    does not grow with depth or time, but n tangent passes for n parameters. `ForwardGradient` takes one
    random tangent instead, and `RealTimeRecurrentLearning` shares the passes of an Elman network.

    Args:
        loss: the cost, by name or as a `Loss`.

    References:
        Wengert. A simple automatic derivative evaluation program. Communications of the ACM, 1964.
    """

    card: ClassVar[Card] = Card(
        name="Forward accumulation",
        family="exact",
        needs=Needs.DIFFERENTIABLE,
        source=("wengert1964",),
        dossier=("S07",),
        local=True,
        weight_transport=False,
        phases=1,
        derivatives=True,
        limit="the gradient",
    )

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return the exact gradient of the batch's mean cost."""
        del key
        flat = flatten(self.loss, learner.model, batch)

        def slope(axis: Float[Array, " n"]) -> Float[Array, ""]:
            return jax.jvp(flat.cost, (flat.theta,), (axis,))[1]

        gradient = along_axes(slope, flat.theta)
        output = learner.model(batch.x)
        return Credit(jnp.mean(self.loss(output, batch.y)), output, (flat.unravel(gradient), None), learner.memory)
