"""Finite differences: move one parameter at a time, both ways, and see what the cost does.

    g_i = ( C(theta + epsilon e_i) - C(theta - epsilon e_i) ) / (2 epsilon)

Source: Nocedal and Wright 2006, section 8.1.

Exact limit: the gradient, up to epsilon^2 times the third derivative.
"""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ..._checks import positive
from ...contract import Batch, Card, Credit, Learner, Needs, Rule
from ._flat import along_axes, flatten


class FiniteDifferences(Rule):
    """Central finite differences: the gradient of anything that can only be evaluated.

    Use it to check other rules, and on small models without useful derivatives. It evaluates the batch
    2n + 1 times for n parameters, so it scales badly: `WeightPerturbation` gives a noisy answer from two.

    Args:
        epsilon: how far each parameter is moved to either side, in its own unit. The default suits
            float32: the error is about epsilon^2 from curvature plus precision / epsilon from rounding,
            least near the cube root of the precision, 5e-3. In float64 pass 1e-5.
        loss: the cost, by name or as a `Loss`.

    Raises:
        ValueError: `epsilon` is not above zero.

    References:
        Nocedal & Wright. Numerical Optimization, 2nd edition. Springer, 2006.
    """

    epsilon: float = 5e-3

    card: ClassVar[Card] = Card(
        name="Finite differences",
        family="exact",
        needs=Needs.CALLABLE,
        source=("nocedal2006",),
        dossier=("S04",),
        local=True,
        weight_transport=False,
        phases=2,
        derivatives=False,
        limit="the gradient as epsilon goes to 0",
    )

    def __check_init__(self):
        """Refuse a step that is not above zero."""
        positive("epsilon", self.epsilon)

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return the difference quotient of the batch's mean cost along each parameter."""
        del key
        flat = flatten(self.loss, learner.model, batch)

        def slope(axis: Float[Array, " n"]) -> Float[Array, ""]:
            step = self.epsilon * axis
            return (flat.cost(flat.theta + step) - flat.cost(flat.theta - step)) / (2 * self.epsilon)

        gradient = along_axes(slope, flat.theta)
        output = learner.model(batch.x)
        return Credit(jnp.mean(self.loss(output, batch.y)), output, (flat.unravel(gradient), None), learner.memory)
