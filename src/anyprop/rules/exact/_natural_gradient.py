"""Natural gradient: steepest descent where distance is measured between the model's predictions.

    F = mean_n J_n^T S_n J_n,   J_n = d output_n / d theta,   direction = (F + lambda I)^-1 g

S is the Fisher information of the output under the model's own distribution, not the labels':
diag(p) - p p^T for `CrossEntropy`, diag(s (1 - s)) for `BinaryCrossEntropy`, I for `SquaredError`. These
losses are log-likelihoods in their natural parameters, so S is also the derivative of the loss's `error`.

Source: Amari 1998.

Exact limit: Newton's step for softmax regression, whose Hessian is F whatever the labels.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import cho_factor, cho_solve
from jaxtyping import Array, Float, Key, PyTree

from ..._checks import positive
from ...contract import Batch, Card, Credit, Learner, Needs, Rule, exact_gradient
from ...losses import BinaryCrossEntropy, CrossEntropy, SquaredError
from ._flat import along_axes, flatten, refuse_large


class NaturalGradient(Rule):
    """Natural gradient with the exact Fisher matrix, F^-1 g.

    Use it on models of at most 5,000 parameters, as the reference that approximations (K-FAC, diagonal
    Fisher) aim at. Unlike `Newton` it always points downhill. One update takes n products of F with a vector
    and a Cholesky factorisation for n parameters; `optax.sgd(learning_rate)` applies it.

    It reports `residual`, ||(F + lambda I) direction - g|| / ||g||, the error of the solve.

    Args:
        damping: lambda, added to the diagonal of F, in units of cost / parameter^2. It must be above zero,
            since F is singular for any softmax output, and bounds the step to ||g|| / lambda.
        loss: `"cross-entropy"`, `"binary-cross-entropy"`, `"squared-error"`, or one of them as a `Loss`.

    Raises:
        ValueError: `damping` is not above zero.
        TypeError: `loss` is another one, whose output distribution is not known.

    References:
        Amari. Natural gradient works efficiently in learning. Neural Computation, 1998.
    """

    damping: float = 1e-3

    card: ClassVar[Card] = Card(
        name="Natural gradient",
        family="exact",
        needs=Needs.DIFFERENTIABLE,
        source=("amari1998",),
        dossier=("S02",),
        local=False,
        weight_transport=True,
        phases=2,
        derivatives=True,
        limit="Newton's step for softmax regression",
    )

    def __check_init__(self):
        """Refuse a damping that is not above zero, and losses without a known Fisher matrix."""
        positive("damping", self.damping)
        if not isinstance(self.loss, CrossEntropy | BinaryCrossEntropy | SquaredError):
            raise TypeError(
                f"loss={type(self.loss).__name__} has no output distribution to take a Fisher matrix of; "
                "pass 'cross-entropy', 'binary-cross-entropy' or 'squared-error', or choose Newton"
            )

    def accept(self, model: PyTree) -> PyTree:
        """Return `model` if its Fisher matrix is affordable."""
        return refuse_large(type(self).__name__, super().accept(model))

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return (F + lambda I)^-1 g of the batch's mean cost."""
        del key
        loss, output, gradient = exact_gradient(self.loss, learner.model, batch)
        g, unravel = ravel_pytree(gradient)
        flat = flatten(self.loss, learner.model, batch)
        _, pull = jax.vjp(flat.predict, flat.theta)

        def row(axis: Float[Array, " n"]) -> Float[Array, " n"]:
            output, j_axis = jax.jvp(flat.predict, (flat.theta,), (axis,))
            _, s_j_axis = jax.jvp(lambda o: self.loss.error(o, batch.y), (output,), (j_axis,))
            return pull(s_j_axis / len(batch.x))[0]

        damped = along_axes(row, flat.theta) + self.damping * jnp.eye(g.size, dtype=g.dtype)
        direction = cho_solve(cho_factor(damped), g)
        residual = jnp.linalg.norm(damped @ direction - g) / jnp.linalg.norm(g)
        return Credit(loss, output, (unravel(direction), None), learner.memory, {"residual": residual})
