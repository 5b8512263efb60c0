"""What the rules share that learn from a system at rest: how they read a model, and how they let it settle."""

from typing import Literal, get_args

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._checks import choose, count, non_negative, positive
from ...contract import Rule
from ...energies import Convergent, Energy, FixedPoint, GradientFlow, Hopfield, Relaxation, Settled, Sweeps
from ...losses import Loss, SquaredError, as_loss
from ...nets import Chain

Method = Literal["gradient-flow", "fixed-point", "sweeps"]
Network = Literal["hopfield", "convergent"]


class Settling(Rule):
    """A rule for systems that settle: its free phase becomes the model's own relaxation."""

    free_steps: int = eqx.field(default=50, static=True, kw_only=True)
    step_size: float = eqx.field(default=0.5, kw_only=True)
    tolerance: float = eqx.field(default=0.0, kw_only=True)
    relaxation: Method = eqx.field(default="gradient-flow", static=True, kw_only=True)
    network: Network = eqx.field(default="hopfield", static=True, kw_only=True)
    loss: Loss = eqx.field(default_factory=SquaredError, converter=as_loss, kw_only=True)

    def __check_init__(self):
        """Refuse numbers out of their range and unknown names."""
        count("free_steps", self.free_steps)
        positive("step_size", self.step_size)
        non_negative("tolerance", self.tolerance)
        choose("relaxation", self.relaxation, get_args(Method))
        choose("network", self.network, get_args(Network))

    def accept(self, model: PyTree) -> Energy:
        """Return the energy that this rule trains, with the free phase as its relaxation.

        Raises:
            TypeError: it is neither an energy nor a chain that can be read as one; the message says what to pass
                instead.
        """
        model = super().accept(model)
        free = self.phase(self.free_steps)
        if isinstance(model, Chain):
            return (Hopfield if self.network == "hopfield" else Convergent)(model, relaxation=free)
        if isinstance(model, Energy):
            return eqx.tree_at(lambda energy: energy.relaxation, model, free, is_leaf=_is_relaxation)
        raise TypeError(
            f"{type(self).__name__} needs {self.card.needs}, but model is a {type(model).__name__}; pass "
            "ap.nets.mlp(784, 500, 10, activation='hard-sigmoid', output='hard-sigmoid', key=key), or an "
            "energies.Energy of your own"
        )

    def phase(self, steps: int) -> Relaxation:
        """Return the relaxation of a phase of so many steps at most."""
        if self.relaxation == "gradient-flow":
            return GradientFlow(steps, self.step_size, self.tolerance)
        return (FixedPoint if self.relaxation == "fixed-point" else Sweeps)(steps, self.tolerance)


def report(phase: str, end: Settled) -> dict[str, Float[Array, ""]]:
    """How a phase ended, in three numbers."""
    return {
        f"{phase}_steps": jnp.mean(end.steps, dtype=end.residual.dtype),
        f"{phase}_residual": jnp.max(end.residual),
        f"{phase}_converged": jnp.mean(end.converged, dtype=end.residual.dtype),
    }


def _is_relaxation(node: object) -> bool:
    return isinstance(node, Relaxation)
