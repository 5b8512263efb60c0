"""Equilibrium propagation step by step, held against backprop through time.

From a state at rest, s_0 = s*, under a nudge of beta:

    update at step t       (dE/dtheta(s_{t+1}) - dE/dtheta(s_t)) / beta
    gradient at step t     dC(s_T)/dtheta_{T-t},  theta_{T-t} the parameters as the step to s_{T-t} uses them

As beta -> 0 the two are equal for every t, in continuous and in discrete time, provided that the system is at rest for
the steps that the gradient travels back. (The paper's updates have the other sign: they are added to weights.)

Source: Ernoult, Grollier, Querlioz, Bengio and Scellier 2019.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._checks import count, positive
from ..contract import Batch
from ..energies import Energy, Settled, State
from ..energies._relaxation import Iteration
from ..losses import Loss, as_loss


class StepwiseUpdates(eqx.Module):
    """What equilibrium propagation and backprop through time have to say at each step, the mean over a batch.

    Args:
        updates: of equilibrium propagation, laid out like the model's parameters, with t = 0, 1, ... on a new first
            axis.
        gradients: of backprop through time, in the same form.
        free: how the free phase ended.
    """

    updates: PyTree
    gradients: PyTree
    free: Settled

    def differences(self) -> dict[str, Float[Array, ""]]:
        """The distance between the two curves over the longer of them, for each array of parameters, by its path."""

        def difference(update: Array, gradient: Array) -> Float[Array, ""]:
            longer = jnp.maximum(jnp.linalg.norm(update.ravel()), jnp.linalg.norm(gradient.ravel()))
            return jnp.linalg.norm((update - gradient).ravel()) / longer

        leaves, _ = jax.tree_util.tree_flatten_with_path(jax.tree.map(difference, self.updates, self.gradients))
        return {jax.tree_util.keystr(path).lstrip("."): value for path, value in leaves}


def gradient_descending_updates(
    model: Energy, batch: Batch, *, loss: str | Loss = "squared-error", beta: float = 0.01, steps: int = 10
) -> StepwiseUpdates:
    """Measure whether each step of a nudged phase updates a system as backprop through time would.

    Use it to see whether a system is one for equilibrium propagation, and for how many steps. It forms a gradient of
    every parameter for every step.

    Args:
        model: the system. Its `relaxation` says how it steps, and for how long its free phase runs.
        batch: examples.
        loss: the cost, by name or as a `Loss`.
        beta: strength of the nudge, above 0; the two differ by O(beta).
        steps: steps of the nudged phase, and steps back.

    Raises:
        ValueError: `beta` or `steps` is out of its range.
        TypeError: the model does not settle in steps.

    References:
        Ernoult, Grollier, Querlioz, Bengio & Scellier. Updates of equilibrium prop match gradients of backprop
        through time in an RNN with static input. NeurIPS 2019.
    """
    positive("beta", beta)
    count("steps", steps)
    relaxation, cost = model.relaxation, as_loss(loss)
    if not isinstance(relaxation, Iteration):
        raise TypeError(
            f"model settles by {type(relaxation).__name__}, which has no steps to unroll; pass an energy with "
            "relaxation=energies.GradientFlow() or energies.FixedPoint()"
        )
    free = model.settle(batch.x)
    rest = free.state

    def nudged(state: State, _: None) -> tuple[State, PyTree]:
        dynamics = model.dynamics(batch.x, lambda s: beta * cost(model.output(s), batch.y))
        after = relaxation.step(dynamics, state)
        statistics = (model.statistics(s, batch.x) for s in (after, state))
        return after, jax.tree.map(lambda new, old: (new - old) / beta, *statistics)

    _, updates = jax.lax.scan(nudged, rest, length=steps)

    def unrolled(models: Energy) -> Float[Array, ""]:
        arrays, static = eqx.partition(models, eqx.is_inexact_array)

        def step(state: State, arrays: PyTree) -> tuple[State, None]:
            return relaxation.step(eqx.combine(arrays, static).dynamics(batch.x), state), None

        state, _ = jax.lax.scan(step, rest, arrays)
        return jnp.mean(cost(model.output(state), batch.y))

    copies = jax.tree.map(lambda w: jnp.stack([w] * steps) if eqx.is_inexact_array(w) else w, model)
    gradients = jax.tree.map(lambda g: g[::-1], eqx.filter_grad(unrolled)(copies))
    return StepwiseUpdates(updates, gradients, free)
