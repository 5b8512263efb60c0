"""Newton's method: jump to where the cost's local quadratic model is stationary.

    H = d^2 C / d theta^2,   direction = (H + lambda I)^-1 g        (saddle-free: (|H| + lambda I)^-1 g)

With H = Q diag(kappa) Q^T the equation is solved one eigenvector at a time,

    direction = Q ( (Q^T g) / (kappa + lambda) ).

An eigenvector along which the curvature is zero to rounding has no Newton step and gets none: every
softmax classifier has some, since a constant added to all its logits changes nothing.

Source: Nocedal and Wright 2006; the saddle-free form is Dauphin et al. 2014.

Exact limit: one step of `optax.sgd(1.0)` minimises a convex quadratic.
"""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key, PyTree

from ..._checks import non_negative
from ...contract import Batch, Card, Credit, Learner, Needs, Rule, exact_gradient
from ._flat import along_axes, flatten, refuse_large


class Newton(Rule):
    """Newton's method: the gradient divided by the curvature, H^-1 g.

    Use it on models of at most 5,000 parameters. `optax.sgd(1.0)` applies the step exactly. Near a minimum it
    converges quadratically; elsewhere, as written, it goes to *any* stationary point, saddles and maxima
    included: then pass `saddle_free=True`, and some `damping` to bound the step. One update takes n
    Hessian-vector products and O(n^3) work for n parameters.

    It reports `residual`, ||(H + lambda I) direction - g|| / ||g||, which is the share of the gradient that
    lies in directions without curvature, and `negative`, how many eigenvalues of H are below zero: at 0
    the step is downhill.

    Args:
        damping: lambda, added to each curvature, in units of cost / parameter^2; 0 is the plain method.
        saddle_free: divide by the curvatures' absolute values, so that negative curvature repels.
        loss: the cost, by name or as a `Loss`.

    Raises:
        ValueError: `damping` is below zero.

    References:
        Nocedal & Wright. Numerical Optimization, 2nd edition. Springer, 2006.
        Dauphin, Pascanu, Gulcehre, Cho, Ganguli & Bengio. Identifying and attacking the saddle point
        problem in high-dimensional non-convex optimization. NeurIPS, 2014.
    """

    damping: float = 0.0
    saddle_free: bool = eqx.field(default=False, static=True)

    card: ClassVar[Card] = Card(
        name="Newton's method",
        family="exact",
        needs=Needs.DIFFERENTIABLE,
        source=("nocedal2006", "dauphin2014"),
        dossier=("S03",),
        local=False,
        weight_transport=True,
        phases=2,
        derivatives=True,
        limit="one step of optax.sgd(1.0) minimises a convex quadratic",
        whole_step=True,
    )

    def __check_init__(self):
        """Refuse a negative damping."""
        non_negative("damping", self.damping)

    def accept(self, model: PyTree) -> PyTree:
        """Return `model` if its Hessian is affordable."""
        return refuse_large(type(self).__name__, super().accept(model))

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return (H + lambda I)^-1 g of the batch's mean cost."""
        del key
        loss, output, gradient = exact_gradient(self.loss, learner.model, batch)
        g, unravel = ravel_pytree(gradient)
        flat = flatten(self.loss, learner.model, batch)

        def row(axis: Float[Array, " n"]) -> Float[Array, " n"]:
            return jax.jvp(jax.grad(flat.cost), (flat.theta,), (axis,))[1]

        kappa, q = jnp.linalg.eigh(along_axes(row, flat.theta))
        curvature = (jnp.abs(kappa) if self.saddle_free else kappa) + self.damping
        rounding = g.size * jnp.finfo(g.dtype).eps * jnp.max(jnp.abs(curvature))
        none = jnp.abs(curvature) <= rounding
        along = q.T @ g
        direction = q @ jnp.where(none, 0, along / jnp.where(none, 1, curvature))
        metrics = {
            "residual": jnp.linalg.norm(jnp.where(none, along, 0)) / jnp.linalg.norm(g),
            "negative": jnp.sum(kappa < -rounding),
        }
        return Credit(loss, output, (unravel(direction), None), learner.memory, metrics)
