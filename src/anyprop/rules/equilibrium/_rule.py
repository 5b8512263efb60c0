"""What the rules share that learn from a system at rest: how they read a model, and how they let it settle."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import ClassVar, Literal, get_args

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._checks import choose, count, non_negative, positive
from ...contract import Batch, Needs, Rule
from ...energies import (
    Convergent,
    Energy,
    FixedPoint,
    GradientFlow,
    Hopfield,
    Relaxation,
    Settled,
    State,
    Sweeps,
    VectorField,
)
from ...energies._relaxation import Iteration, ToRest, fastest, speeds
from ...losses import Loss, SquaredError, as_loss
from ...nets import Chain

Method = Literal["gradient-flow", "fixed-point", "sweeps"]
Network = Literal["hopfield", "convergent"]


class Phases(Rule):
    """A rule for systems that settle, in phases."""

    free_steps: int = eqx.field(default=50, static=True, kw_only=True)
    step_size: float = eqx.field(default=0.5, kw_only=True)
    tolerance: float = eqx.field(default=0.0, kw_only=True)
    relaxation: Method | Relaxation = eqx.field(default="gradient-flow", static=True, kw_only=True)
    loss: Loss = eqx.field(default_factory=SquaredError, converter=as_loss, kw_only=True)

    stepwise: ClassVar[bool] = False
    """Whether the rule looks at single steps of the relaxation."""

    strength: ClassVar[str] = "beta"
    """The argument that says how strong a nudge is."""

    def __check_init__(self):
        """Refuse numbers out of their range, unknown names, and relaxations that this rule has no use for."""
        count("free_steps", self.free_steps)
        positive("step_size", self.step_size)
        non_negative("tolerance", self.tolerance)
        if isinstance(self.relaxation, Relaxation):
            self._check_own(self.relaxation)
        else:
            choose("relaxation", self.relaxation, get_args(Method))

    def _check_own(self, relaxation: Relaxation) -> None:
        """Refuse a relaxation that does not look for rest, and what it would leave unheard."""
        name = type(relaxation).__name__
        if not isinstance(relaxation, Iteration if self.stepwise else ToRest):
            what = "repeats one step" if self.stepwise else "looks for a state at rest"
            raise TypeError(f"relaxation must be one that {what}, such as energies.FixedPoint(), not {name}")
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for argument in ("free_steps", "step_size", "tolerance"):
            if (value := getattr(self, argument)) != defaults[argument]:
                part = argument.removeprefix("free_")
                remedy = f"pass energies.{name}({part}={value})" if hasattr(relaxation, part) else "leave it out"
                raise ValueError(f"{argument}={value} is for a relaxation by name, which this {name} is not; {remedy}")

    @property
    def free_phase(self) -> ToRest:
        """The relaxation of the free phase."""
        if isinstance(self.relaxation, ToRest):
            return self.relaxation
        if self.relaxation == "gradient-flow":
            return GradientFlow(self.free_steps, self.step_size, self.tolerance)
        return (FixedPoint if self.relaxation == "fixed-point" else Sweeps)(self.free_steps, self.tolerance)

    def phase(self, steps: int) -> ToRest:
        """Return the same relaxation, of so many steps at most."""
        return dataclasses.replace(self.free_phase, steps=steps)

    def complaint(self, metrics: Mapping[str, float]) -> str | None:
        """Say that a phase does not settle: to the tolerance, or to where a nudge can be told from drift.

        A state that moves faster by itself than the nudge first moves any unit says nothing about the error. A
        device is not judged: it settles by itself, whatever is passed here.
        """
        if not metrics.keys() & {"nudge_speed", "error_speed"}:
            return None
        free, own = self.free_phase, isinstance(self.relaxation, Relaxation)
        step_size = getattr(free, "step_size", None)
        shorter = "" if step_size is None else f" or a smaller step_size{' of relaxation' if own else ''}"
        phases = {
            "free": (free.steps, f"more {'steps of relaxation' if own else 'free_steps'}{shorter}"),
            "nudged": (getattr(self, "nudged_steps", 0), f"more nudged_steps{shorter}, or a smaller {self.strength}"),
        }
        for phase, (steps, remedy) in phases.items():
            taken = f"{steps} steps" + ("" if step_size is None else f" of {step_size:g}")
            if found := restless(metrics, phase, free.tolerance, taken, remedy):
                return found
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
        return as_energy(self, super().accept(model), view, self.free_phase)


def as_energy(rule: Rule, model: PyTree, view: Callable[..., Energy], relaxation: Relaxation) -> Energy:
    """An energy, or a chain read as one, with `relaxation`; of anything else, what to pass instead."""
    if isinstance(model, Chain):
        return view(model, relaxation=relaxation)
    if isinstance(model, Energy):
        return eqx.tree_at(lambda energy: energy.relaxation, model, relaxation, is_leaf=_is_relaxation)
    own = "an energies.Energy of your own" if rule.card.needs is Needs.ENERGY else "energies.Hopfield(chain)"
    raise TypeError(
        f"{type(rule).__name__} needs {rule.card.needs}, but model is a {type(model).__name__}; pass "
        f"ap.nets.mlp(784, 500, 10, activation='hard-sigmoid', output='hard-sigmoid', key=key), or {own}"
    )


def report(phase: str, end: Settled) -> dict[str, Float[Array, ""]]:
    """How a phase ended, in three numbers, and one for each layer."""
    return {
        f"{phase}_steps": jnp.mean(end.steps, dtype=end.residual.dtype),
        f"{phase}_residual": jnp.max(end.residual),
        f"{phase}_converged": jnp.mean(end.converged, dtype=end.residual.dtype),
    } | {f"{phase}_residual_{k}": jnp.max(speed) for k, speed in enumerate(end.speeds, start=1)}


def restless(metrics: Mapping[str, float], phase: str, tolerance: float, taken: str, remedy: str) -> str | None:
    """Say that a phase did not settle: to numbers, to its tolerance, or without one to where the error can be felt.

    Args:
        metrics: of an epoch, as `report` and `onset` name them, or `clamp_speed_k` of each layer by itself.
        phase: the phase's name.
        tolerance: the speed it was to settle to; 0 for none.
        taken: how far it went.
        remedy: what to pass instead.
    """
    if (residual := metrics.get(f"{phase}_residual")) is None:
        return None
    layers = {name: v for name, v in metrics.items() if name.startswith(f"{phase}_residual_")}
    if not math.isfinite(residual):
        lost = ", ".join(name.rpartition("_")[2] for name, speed in layers.items() if not math.isfinite(speed))
        return (
            f"the state of the {phase} phase is not finite{f', in layer {lost}' if lost else ''}: the slope of the "
            f"energy is not, where the phase starts or on its way, or a step was too long; pass a model whose slope is "
            f"finite there, or a smaller step_size"
        )
    where = f", in layer {max(layers, key=layers.__getitem__).rpartition('_')[2]}," if layers else ""
    drift = f"the fastest unit of a batch{where} still moved at {residual:.2g} per unit of time"
    if tolerance:
        missed = 1 - metrics.get(f"{phase}_converged", 1.0)
        end = f"{missed:.2%} of the {phase} phases did not settle to tolerance={tolerance:g} within {taken}: {drift}"
        return f"{end}; pass {remedy}" if missed > 0 else None
    end = f"the {phase} phase did not settle within {taken}"
    for cause in ("nudge", "error"):
        if residual > (felt := metrics.get(f"{cause}_speed", math.inf)):
            return f"{end}: {drift}, and the {cause} first moves no unit faster than at {felt:.2g}; pass {remedy}"
    for name, speed in layers.items():
        layer = name.rpartition("_")[2]
        if speed > (felt := metrics.get(f"clamp_speed_{layer}", math.inf)):
            return (
                f"{end}: in layer {layer} the fastest unit of a batch still moved at {speed:.2g} per unit of time, and "
                f"the clamped outputs first move no unit there faster than at {felt:.2g}; pass {remedy}"
            )
    return None


FAINT = 0.01
"""The part of the push at the outputs below which no drift is complained of, however little a nudge moves the units."""


def onset(
    model: Energy | VectorField, state: State, batch: Batch, loss: Loss, beta: float | Array
) -> dict[str, Float[Array, ""]]:
    """How fast a nudge first moves the batch's fastest unit: what it adds to the velocities at the free rest.

    At least `FAINT` of |beta dC/d(output)|: units at the end of their range are moved by nothing, and a state of
    such is not restless for its last bits.
    """

    def nudge(state: State) -> Float[Array, " batch"]:
        return beta * loss(model.output(state), batch.y)

    free, nudged = (model.dynamics(batch.x, pull).velocity(state) for pull in (None, nudge))
    push = jnp.abs(beta * loss.error(model.output(state), batch.y))
    return {"nudge_speed": jnp.maximum(jnp.max(fastest(speeds(free, nudged))), FAINT * jnp.max(push))}


def error_speed(model: Energy | VectorField, state: State, batch: Batch, loss: Loss) -> dict[str, Float[Array, ""]]:
    """The same of a nudge of 1, for rules without one."""
    return {"error_speed": onset(model, state, batch, loss, 1.0)["nudge_speed"]}


def _is_relaxation(node: object) -> bool:
    return isinstance(node, Relaxation)
