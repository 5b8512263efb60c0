"""Implicit differentiation at rest: recurrent backpropagation.

    s = step(theta, s)                                            the state at rest
    grad = (d step / d theta)^T (I - J^T)^{-1} dC/ds,             J = d step / ds

The inverse is a second relaxation, of errors, through the transposed network: v <- J^T v + dC/ds.

Source: Almeida 1987; Pineda 1987.

Exact limit: the gradient of the cost at rest, once state and errors have settled.
"""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Key

from ...contract import Batch, Card, Credit, Learner, Needs
from ...energies import Energy, Settled
from ._rule import Settling, error_speed, report


class ImplicitDifferentiation(Settling):
    """Recurrent backpropagation: the exact gradient of the cost at rest, by the implicit function theorem.

    Use it as the exact baseline of a settling system. Errors relax through a linear network of their own, for as many
    steps as the state may take; no state on the way is remembered. It reports `free_...` as `EquilibriumPropagation`
    does.

    Args:
        free_steps: steps of the relaxation, of the state and again of the errors, at most.
        step_size: of each step of a gradient flow, in units of the units' time constant.
        tolerance: the relaxation of the state ends early for an example once none of its units moves faster than
            this; 0 or more.
        relaxation: `"gradient-flow"`, `"fixed-point"` (the discrete-time dynamics), `"sweeps"` (layer after layer), or
            an object that brings its own steps and tolerance, `energies.FixedPoint(30, 1e-6)`, or that of an energy,
            `energy.relaxation`.
        network: how a chain is read: `"hopfield"`, or `"convergent"`, whose state is its rates.
        loss: the cost C, by name or as a `Loss`.

    Raises:
        ValueError: a number is out of its range, a name is unknown, or `free_steps`, `step_size` or `tolerance` stands
            beside an object that has its own.
        TypeError: the relaxation is an object that looks for no rest.

    References:
        Almeida. A learning rule for asynchronous perceptrons with feedback in a combinatorial environment. ICNN, 1987.
        Pineda. Generalization of back-propagation to recurrent neural networks. Physical Review Letters, 1987.
    """

    card: ClassVar[Card] = Card(
        name="Implicit differentiation",
        family="equilibrium",
        needs=Needs.ENERGY,
        source=("almeida1987", "pineda1987"),
        dossier=("S64",),
        local=False,
        weight_transport=True,
        phases=2,
        derivatives=True,
        limit="the gradient of the cost at rest",
    )

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return the gradient at rest."""
        del key

        def cost(model: Energy) -> tuple[Array, tuple[Array, Settled]]:
            free = model.settle(batch.x)
            output = model.output(free.state)
            return jnp.mean(self.loss(output, batch.y)), (output, free)

        (loss, (output, free)), grads = eqx.filter_value_and_grad(cost, has_aux=True)(learner.model)
        metrics = report("free", free) | error_speed(learner.model, free.state, batch, self.loss)
        return Credit(loss, output, (grads, None), learner.memory, metrics)
