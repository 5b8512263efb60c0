"""What the methods with auxiliary variables for each training example share: their Gauss-Newton step.

    Gauss-Newton step for min_v cost(residuals(v)), cost convex, J the Jacobian of the residuals, H the
    Hessian of the cost:   (J^T H J) d = -J^T cost',   v <- v + s d   with the best s of 1, 1/2, 1/4, ..., 0

The step length may be 0, so no step raises the cost.
"""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ...nets import Chain, affines

Variables = TypeVar("Variables", bound=PyTree)

HALVINGS = 8
"""Step lengths down to 2^-7: where none of them lowers the cost, the model's curvature is of no use."""


def one_example(model: Chain) -> jax.ShapeDtypeStruct:
    """Shape and type of a batch of one input, in the precision of the weights."""
    return jax.ShapeDtypeStruct((1, *model.input_shape), jnp.result_type(*(site.weight for site in affines(model))))


def gauss_newton(
    cost: Callable[[PyTree], Float[Array, ""]],
    residuals: Callable[[Variables], PyTree],
    variables: Variables,
    *,
    iterations: int,
) -> Variables:
    """One Gauss-Newton step, its linear system solved by conjugate gradients without forming a matrix.

    Args:
        cost: convex function of the residuals.
        residuals: function of the variables; an array or a tree of arrays.
        variables: where to step from; an array or a tree of arrays.
        iterations: iterations of conjugate gradients.

    Returns:
        The variables after the step; their cost is not above the one before.
    """
    r, pull = jax.vjp(residuals, variables)

    def curvature(direction: Variables) -> Variables:
        moved = jax.jvp(residuals, (variables,), (direction,))[1]
        return pull(jax.jvp(jax.grad(cost), (r,), (moved,))[1])[0]

    downhill = jax.tree.map(jnp.negative, pull(jax.grad(cost)(r))[0])
    direction, _ = jax.scipy.sparse.linalg.cg(curvature, downhill, tol=0.0, maxiter=iterations)

    def at(length: Float[Array, ""]) -> Variables:
        # Not 0 * d: where there is no curvature d is not finite, and the step must be none.
        return jax.tree.map(lambda v, d: jnp.where(length == 0, v, v + length * d), variables, direction)

    lengths = jnp.append(0.5 ** jnp.arange(HALVINGS), 0.0)
    costs = jax.lax.map(lambda length: cost(residuals(at(length))), lengths)
    return at(lengths[jnp.nanargmin(costs)])
