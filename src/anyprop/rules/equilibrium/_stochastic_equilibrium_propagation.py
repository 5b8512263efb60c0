"""Equilibrium propagation in heat: means over a fluctuating state in the place of a state at rest.

    F(theta, beta, s) = E(theta, s, x) + beta C(s, y),    p_beta(s) = e^{-F / T} / Z_beta,    A(beta) = -T log Z_beta

    one-sided:  (E_beta[dF/dtheta] - E_0[dF/dtheta]) / beta            = d/dtheta (A(beta) - A(0)) / beta
    centred:    (E_beta[dF/dtheta] - E_-beta[dF/dtheta]) / (2 beta)    = d/dtheta (A(beta) - A(-beta)) / (2 beta)

E_beta is the mean over p_beta. Both equations hold at any beta, for dA/dtheta = E_beta[dF/dtheta]: what is descended at
a finite nudge is the difference of two free energies. Since dA/dbeta = E_beta[C], it is the expected cost, averaged
over the nudges in between, and tends to E_0[C] as beta -> 0. Here the means are taken over Langevin dynamics.

A mean over n independent samples has an error of about 1 / sqrt(n), and so the update one of 1 / (beta sqrt(n)): small
nudges drown in the noise that a nudge of 1 stands out from.

Source: Scellier and Bengio 2017 for the stochastic form; Litman 2025 for finite nudges.

Exact limit: as n -> inf and the step size -> 0, the gradient of (A(beta) - A(0)) / beta. At T = 0, equilibrium
propagation.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from ..._checks import choose, count, non_negative, positive
from ...contract import Batch, Card, Credit, Learner, Needs, Rule
from ...energies import (
    Convergent,
    Energy,
    GradientFlow,
    Hopfield,
    Initialized,
    Langevin,
    ReadOut,
    Resistive,
    Samples,
    State,
)
from ...energies._relaxation import fastest, speeds
from ...losses import Loss, SquaredError, as_loss
from ._rule import as_energy, onset, restless

Variant = Literal["one-sided", "centred"]


class StochasticEquilibriumPropagation(Rule):
    """Equilibrium propagation in a system that never rests: differences of mean energy gradients over Langevin samples.

    Use it for systems with noise, at a finite nudge: with the default, the difference of two means at beta = 1 and 0
    is the exact gradient of a difference of free energies, with no limit to be taken. A chain is read as
    `energies.Hopfield`; any `energies.Energy` whose velocity is the slope of its energy can be passed instead.
    `Learner.model` predicts without noise, by settling; the output that `credit` reports is the mean over the free
    samples.

    A phase first warms up, then takes a sample every `spacing` steps. To learn, the mean over the samples has to know
    the state better than the nudge moves it: sqrt(temperature / samples) well below beta times the error.

    It reports, as `free_residual` and `nudged_residual`, the net speed of the batch's fastest unit over the time of
    sampling: noise moves it back and forth, and what is left is a drift. That it is faster than the nudge first moves a
    unit, `nudge_speed`, is complained of.

    Args:
        beta: strength of the nudge, in units of the energy per unit of the cost, above 0. A nudge of -beta pushes
            away from the answer: against squared error, output units without bounds withstand it below 1.
        variant: `"one-sided"`, or `"centred"` (nudged phases with beta and with -beta).
        temperature: T, in units of the energy; 0 or more. A unit without neighbours fluctuates by sqrt(T).
        samples: samples of each example in each phase.
        spacing: steps from one sample to the next. Samples are independent when 1 / step_size or more lie between.
        nudged_steps: steps to warm up a nudged phase, from the last state of the free one.
        free_steps: steps to warm up the free phase, from the system's start; and, without noise, to predict.
        step_size: of each step, in units of the units' time constant. Langevin dynamics widen the distribution in a
            well of curvature c by a factor of 1 / (1 - step_size c / 2).
        loss: the cost C, by name or as a `Loss`.

    Raises:
        ValueError: a number is out of its range, or a name is unknown.

    References:
        Scellier & Bengio. Equilibrium propagation: bridging the gap between energy-based models and
        backpropagation. Frontiers in Computational Neuroscience, 2017.
        Litman. Equilibrium propagation without limits. arXiv:2511.22024, 2025.
    """

    beta: float = 1.0
    variant: Variant = eqx.field(default="one-sided", static=True)
    temperature: float = 0.001
    samples: int = eqx.field(default=10, static=True)
    spacing: int = eqx.field(default=5, static=True)
    nudged_steps: int = eqx.field(default=30, static=True)
    free_steps: int = eqx.field(default=50, static=True, kw_only=True)
    step_size: float = eqx.field(default=0.2, kw_only=True)
    loss: Loss = eqx.field(default_factory=SquaredError, converter=as_loss, kw_only=True)

    card: ClassVar[Card] = Card(
        name="Stochastic equilibrium propagation",
        family="equilibrium",
        needs=Needs.ENERGY,
        source=("scellier2017", "litman2025"),
        dossier=("S55", "S56"),
        local=True,
        weight_transport=True,
        phases=2,
        derivatives=True,
        limit="the gradient of a difference of free energies over beta, with enough samples; at temperature 0, "
        "equilibrium propagation",
    )

    def __check_init__(self):
        """Refuse numbers out of their range and unknown names."""
        positive("beta", self.beta)
        choose("variant", self.variant, get_args(Variant))
        non_negative("temperature", self.temperature)
        count("samples", self.samples)
        count("spacing", self.spacing)
        count("nudged_steps", self.nudged_steps)
        count("free_steps", self.free_steps)
        positive("step_size", self.step_size)

    def accept(self, model: PyTree) -> Energy:
        """Return the energy that this rule trains, settling for `free_steps` without noise to predict.

        Raises:
            TypeError: it is neither an energy nor a chain that can be read as one, or its velocity is no slope; the
                message says what to pass instead.
        """
        system = model
        while isinstance(system, ReadOut | Initialized):
            system = system.system if isinstance(system, ReadOut) else system.network
        # Each node of a Resistive moves by the slope over its own conductance, and the noise is the same for all.
        if isinstance(system, Convergent | Resistive):
            raise TypeError(
                "StochasticEquilibriumPropagation samples by Langevin dynamics, but the velocity of a "
                f"{type(system).__name__} is not the slope of its energy; pass energies.Hopfield(chain) in its place"
            )
        return as_energy(self, super().accept(model), Hopfield, GradientFlow(self.free_steps, self.step_size))

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return the difference of mean dF/dtheta between two phases, over the difference of their nudges."""
        model: Energy = learner.model
        key_free, key_high, key_low = jax.random.split(key, 3)

        def total(model: Energy, beta: float, state: State) -> Float[Array, " batch"]:
            return model.energy(state, batch.x) + beta * self.loss(model.output(state), batch.y)

        def phase(beta: float, start: State, steps: int, key: Array) -> tuple[Samples, Float[Array, " batch"]]:
            def pull(state: State) -> Float[Array, " batch"]:
                return beta * self.loss(model.output(state), batch.y)

            dynamics = model.dynamics(batch.x, pull if beta else None)
            key_warm, key_sample = jax.random.split(key)
            warm = Langevin(steps, self.step_size, self.temperature)(dynamics, start, key=key_warm).state
            bath = Langevin(self.spacing, self.step_size, self.temperature)
            states = bath.sample(dynamics, warm, self.samples, key=key_sample)
            drift = speeds(warm, last(states), self.samples * self.spacing * self.step_size)
            return states, fastest(drift)

        free, free_drift = phase(0.0, model.start(batch.x), self.free_steps, key_free)
        high, (nudged, drift) = self.beta, phase(self.beta, last(free), self.nudged_steps, key_high)
        low, opposite = 0.0, free
        if self.variant == "centred":
            low = -self.beta
            opposite, low_drift = phase(low, last(free), self.nudged_steps, key_low)
            drift = jnp.maximum(drift, low_drift)

        def contrast(model: Energy) -> Float[Array, ""]:
            def difference(nudged: State, opposite: State) -> Float[Array, " batch"]:
                return total(model, high, nudged) - total(model, low, opposite)

            return jnp.mean(jax.vmap(difference)(nudged, opposite)) / (high - low)

        output = jnp.mean(jax.vmap(model.output)(free), axis=0)
        loss = jnp.mean(self.loss(output, batch.y))
        metrics = {"free_residual": jnp.max(free_drift), "nudged_residual": jnp.max(drift)}
        metrics |= onset(model, last(free), batch, self.loss, high)
        return Credit(loss, output, (eqx.filter_grad(contrast)(model), None), learner.memory, metrics)

    def complaint(self, metrics: Mapping[str, float]) -> str | None:
        """Say that a phase drifts, while it is sampled, faster than the nudge first moves a unit."""
        for phase, steps in (("free", self.free_steps), ("nudged", self.nudged_steps)):
            remedy = f"more {phase}_steps, a smaller step_size, or more samples where noise moves it"
            if found := restless(metrics, phase, 0.0, f"{steps} steps of {self.step_size:g}", remedy):
                return found
        return None


def last(samples: Samples) -> State:
    """The last of the states."""
    return jax.tree.map(lambda s: s[-1], samples)
