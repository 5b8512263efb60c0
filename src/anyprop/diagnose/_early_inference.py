"""Early inference: whether the first moves of a nudged Hopfield network are the errors of backprop.

    moved:      Delta_k = (s_k(m) - s_k^0) / (beta eps^m),   m = L - k + 1 steps after the outputs are nudged
    backprop:   Delta_L = -dC/ds_L,   Delta_{k-1} = rho'(s_{k-1}) * W_k^T (rho'(s_k) * Delta_k)

A unit that is pressed against the end of its range stays there, and has no error.

Source: Bengio and Fischer 2015.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._checks import positive
from ..contract import Batch
from ..energies import GradientFlow, Hopfield
from ..energies._layered import Activity
from ..losses import Loss, as_loss
from ..nets import Residual
from ..rules.equilibrium._early_inference import first_moves
from ._layers import cosine, site_names

Layers = dict[str, Float[Array, ""]]


class FirstDisplacements(eqx.Module):
    """How a settled network first answers a nudge of its outputs, one entry a layer.

    Args:
        moved: Delta_k as the dynamics make it, in units of the state per unit of the cost's slope.
        backprop: Delta_k as backprop makes it.
        cosine: of the angle between the two; NaN where one of them is zero.
        ratio: the size of the first over that of the second.
        residual: speed of the fastest unit in the last step of the free phase: it has to be far below beta eps^L for
            the first layer's move to be told from it.
    """

    moved: dict[str, Activity]
    backprop: dict[str, Activity]
    cosine: Layers
    ratio: Layers
    residual: Float[Array, ""]


def early_inference(
    model: Hopfield, batch: Batch, *, loss: str | Loss = "squared-error", beta: float = 1e-3, step_size: float = 0.5
) -> FirstDisplacements:
    """Nudge a settled Hopfield network, and compare the first move of each layer with its error in backprop.

    Use it, in double precision, to see the errors of backprop in a network that has none: the two agree as beta goes
    to 0, in every layer and at any step size. In single precision the move of a layer, about beta eps^m, is lost in
    the rounding of its state if beta and eps are small.

    Args:
        model: a chain without residual blocks, read as a Hopfield network; its relaxation is the free phase.
        batch: examples.
        loss: the cost C, by name or as a `Loss`.
        beta: strength of the nudge, in units of the energy per unit of the cost, above 0.
        step_size: eps, of a step of the nudged phase in units of the units' time constant, above 0.

    Raises:
        TypeError: the chain has residual blocks, so that a nudge reaches a layer by two ways.
        ValueError: a number is out of its range.

    References:
        Bengio & Fischer. Early inference in energy-based models approximates back-propagation. arXiv:1510.02777, 2015.
    """
    positive("beta", beta)
    phase, loss = GradientFlow(1, step_size), as_loss(loss)
    if any(isinstance(stage, Residual) for stage in model.chain.stages):
        raise TypeError("early_inference needs one layer after the other; pass a chain without residual blocks")
    free = model.settle(batch.x)

    def cost(state: list[Activity]) -> Float[Array, " batch"]:
        return loss(model.output(state), batch.y)

    dynamics = model.dynamics(batch.x, lambda state: beta * cost(state))
    moves = [
        (moved[k] - free.state[k]) / (beta * step_size**m) for k, m, moved in first_moves(phase, dynamics, free.state)
    ]
    errors = _backprop(model, batch, cost, free.state)
    names = site_names(model.chain)
    pairs = {name: (m.ravel(), e.ravel()) for name, m, e in zip(names, moves, errors, strict=True)}
    return FirstDisplacements(
        dict(zip(names, moves, strict=True)),
        dict(zip(names, errors, strict=True)),
        {name: cosine(move, error) for name, (move, error) in pairs.items()},
        {name: jnp.linalg.norm(move) / jnp.linalg.norm(error) for name, (move, error) in pairs.items()},
        jnp.max(free.residual),
    )


def _backprop(
    model: Hopfield, batch: Batch, cost: Callable[[list[Activity]], Float[Array, " batch"]], rest: list[Activity]
) -> list[Activity]:
    """-dC/ds_k through s_k as a function of s_{k-1} at rest."""
    velocity = model.dynamics(batch.x).velocity
    (loose,) = jax.vjp(model.project, jax.tree.map(jnp.add, rest, velocity(rest)))[1]([jnp.ones_like(s) for s in rest])
    errors = [-loose[-1] * jax.grad(lambda state: jnp.sum(cost(state)))(rest)[-1]]
    for k in range(len(rest) - 1, 0, -1):

        def layer(below: Activity, k: int = k) -> Activity:
            return velocity([*rest[: k - 1], below, *rest[k:]])[k]

        (error,) = jax.vjp(layer, rest[k - 1])[1](errors[0])
        errors.insert(0, loose[k - 1] * error)
    return errors
