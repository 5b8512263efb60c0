"""What the rules share that learn from a system at rest: how they read a model, and how they let it settle."""

import math
from collections.abc import Callable, Mapping
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


class Phases(Rule):
    """A rule for systems that settle, in phases."""

    free_steps: int = eqx.field(default=50, static=True, kw_only=True)
    step_size: float = eqx.field(default=0.5, kw_only=True)
    tolerance: float = eqx.field(default=0.0, kw_only=True)
    relaxation: Method = eqx.field(default="gradient-flow", static=True, kw_only=True)
    loss: Loss = eqx.field(default_factory=SquaredError, converter=as_loss, kw_only=True)

    def __check_init__(self):
        """Refuse numbers out of their range and unknown names."""
        count("free_steps", self.free_steps)
        positive("step_size", self.step_size)
        non_negative("tolerance", self.tolerance)
        choose("relaxation", self.relaxation, get_args(Method))

    def phase(self, steps: int) -> Relaxation:
        """Return the relaxation of a phase of so many steps at most."""
        if self.relaxation == "gradient-flow":
            return GradientFlow(steps, self.step_size, self.tolerance)
        return (FixedPoint if self.relaxation == "fixed-point" else Sweeps)(steps, self.tolerance)

    def complaint(self, metrics: Mapping[str, float]) -> str | None:
        """Say that the free phase does not settle: to the tolerance, or to where a nudge can be told from drift.

        A state that moves faster by itself than the nudge first moves the outputs says nothing about the error.
        """
        if "free_residual" not in metrics:
            return None
        flow = self.relaxation == "gradient-flow"
        taken = f"{self.free_steps} steps" + (f" of {self.step_size:g}" if flow else "")
        remedy = "more free_steps" + (" or a smaller step_size" if flow else "")
        if self.tolerance:
            return restless(metrics, "free", self.tolerance, taken, remedy)
        if metrics["free_residual"] > metrics.get("nudge_speed", math.inf):
            return (
                f"the free phase did not settle within {taken}: {_fastest(metrics, 'free')}, but the nudge first moves "
                f"an output unit at {metrics['nudge_speed']:.2g} at most, and cannot be told from drift; pass {remedy}"
            )
        return None


class Settling(Phases):
    """A rule for systems with an energy: its free phase becomes the model's own relaxation."""

    network: Network = eqx.field(default="hopfield", static=True, kw_only=True)

    def __check_init__(self):
        """Refuse an unknown name."""
        choose("network", self.network, get_args(Network))

    def accept(self, model: PyTree) -> Energy:
        """Return the energy that this rule trains, with the free phase as its relaxation.

        Raises:
            TypeError: it is neither an energy nor a chain that can be read as one; the message says what to pass
                instead.
        """
        view = Hopfield if self.network == "hopfield" else Convergent
        return as_energy(self, super().accept(model), view, self.phase(self.free_steps))


def as_energy(rule: Rule, model: PyTree, view: Callable[..., Energy], relaxation: Relaxation) -> Energy:
    """An energy, or a chain read as one, with `relaxation`; of anything else, what to pass instead."""
    if isinstance(model, Chain):
        return view(model, relaxation=relaxation)
    if isinstance(model, Energy):
        return eqx.tree_at(lambda energy: energy.relaxation, model, relaxation, is_leaf=_is_relaxation)
    raise TypeError(
        f"{type(rule).__name__} needs {rule.card.needs}, but model is a {type(model).__name__}; pass "
        "ap.nets.mlp(784, 500, 10, activation='hard-sigmoid', output='hard-sigmoid', key=key), or an energies.Energy "
        "of your own"
    )


def report(phase: str, end: Settled) -> dict[str, Float[Array, ""]]:
    """How a phase ended, in three numbers, and one for each layer."""
    return {
        f"{phase}_steps": jnp.mean(end.steps, dtype=end.residual.dtype),
        f"{phase}_residual": jnp.max(end.residual),
        f"{phase}_converged": jnp.mean(end.converged, dtype=end.residual.dtype),
    } | {f"{phase}_residual_{k}": jnp.max(speed) for k, speed in enumerate(end.speeds, start=1)}


def restless(metrics: Mapping[str, float], phase: str, tolerance: float, taken: str, remedy: str) -> str | None:
    """Say that a phase did not settle to its tolerance, if that is above 0 and it did not.

    Args:
        metrics: of an epoch, as `report` names them.
        phase: the phase's name.
        tolerance: the speed it was to settle to.
        taken: how far it went.
        remedy: what to pass instead.
    """
    missed = 1 - metrics.get(f"{phase}_converged", 1.0)
    if not tolerance or missed <= 0 or f"{phase}_residual" not in metrics:
        return None
    return (
        f"{missed:.2%} of the {phase} phases did not settle to tolerance={tolerance:g} within {taken}: "
        f"{_fastest(metrics, phase)}; pass {remedy}"
    )


def _fastest(metrics: Mapping[str, float], phase: str) -> str:
    """Which unit moved fastest at the end of a phase."""
    layers = {name: speed for name, speed in metrics.items() if name.startswith(f"{phase}_residual_")}
    where = f", in layer {max(layers, key=layers.__getitem__).rpartition('_')[2]}," if layers else ""
    return f"the fastest unit of a batch{where} still moved at {metrics[f'{phase}_residual']:.2g} per unit of time"


def onset(loss: Loss, beta: float | Array, output: Array, y: Array) -> dict[str, Float[Array, ""]]:
    """How fast a nudge first moves the batch's fastest output unit, |beta dC/d(output)|."""
    return {"nudge_speed": jnp.max(jnp.abs(beta * loss.error(output, y)))}


def _is_relaxation(node: object) -> bool:
    return isinstance(node, Relaxation)
