"""Holomorphic equilibrium propagation: nudge along a circle in the complex plane, and read the derivative off it.

    beta_k = r e^{2 pi i k / N},  k = 0 ... N - 1
    s_k = the rest of  ds/dt = -dF/ds  with the complex nudge beta_k,   F = E + beta C

    grad = Re( 1/(N r) sum_k dF/dtheta(beta_k, s_k) e^{-2 pi i k / N} )

This is Cauchy's integral for the derivative of dF/dtheta with respect to beta at 0, by the trapezoidal rule. No
conjugate appears anywhere: states, energies and costs are the analytic continuation of the real ones. As theta is
real, s_{N-k} is the conjugate of s_k, and half of the circle is enough.

Source: Laborieux and Zenke 2022.

Exact limit: the gradient of the mean of C(s^0, y), in settled phases. The error falls like r^N as N grows, as long as
the circle lies within the disc around 0 in which s is an analytic function of beta. N = 2 is centred equilibrium
propagation.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, Key, PyTree

from ..._checks import count, non_negative, positive
from ...contract import Batch, Card, Credit, Learner, Needs
from ...energies import Dynamics, Energy, Noisy, Relaxation, Settled, State, continuation
from ...energies._relaxation import Iteration
from ._rule import Settling, onset, report


class HolomorphicEquilibriumPropagation(Settling):
    """Holomorphic equilibrium propagation: the exact derivative from a few finite nudges in the complex plane.

    Use it where a nudge has to be strong, against noise in the units for instance, and its bias must not. Units, loss
    and energy have to be analytic: tanh, sigmoid, steep-sigmoid or identity, mean pooling, squared error or
    cross-entropy. A radius beyond the nearest singularity of the states brings a bias that no number of points removes;
    tanh and sigmoids have theirs at imaginary arguments.

    It reports `free_...` and, of all phases on the circle, `nudged_...` as `EquilibriumPropagation` does.

    Args:
        radius: r, strength of the nudge, in units of the energy per unit of the cost, above 0.
        points: N, nudges on the circle, at least 2. N // 2 + 1 of them are computed, which cost about four times as
            much as real ones but for 2 points, whose nudges are real.
        nudged_steps: steps of a nudged phase, at most.
        noise: standard deviation of noise that is added to every unit at each step of every phase, in units of the
            state; 0 for none. With noise all steps are taken. A point and its conjugate share a draw, so that noise is
            averaged over N // 2 + 1 draws, not over N. The variance of the update is about 2 - 2 / N times that of N
            phases with noise of their own (2 - 1 / N times where N is odd), so figures in noise understate what such
            phases would reach.
        free_steps: steps of the free phase, at most.
        step_size: of each step of a gradient flow, in units of the units' time constant.
        tolerance: a phase ends early for an example once none of its units moves faster than this; 0 or more.
        relaxation: `"gradient-flow"`, `"fixed-point"` (the discrete-time dynamics), `"sweeps"` (layer after layer), or
            an object of one of these kinds that brings its own steps and tolerance, `energies.FixedPoint(30, 1e-6)`.
            Nudged phases have `nudged_steps` of it.
        network: how a chain is read: `"hopfield"`, or `"convergent"`, whose state is its rates.
        loss: the cost C, by name or as a `Loss`; squared error or cross-entropy.

    Raises:
        ValueError: a number is out of its range, a name is unknown, or `free_steps`, `step_size` or `tolerance` stands
            beside an object that has its own.
        TypeError: the relaxation is an object that repeats no single step.

    References:
        Laborieux & Zenke. Holomorphic equilibrium propagation computes exact gradients through finite size
        oscillations. NeurIPS 2022.
    """

    radius: float = 0.2
    points: int = eqx.field(default=4, static=True)
    nudged_steps: int = eqx.field(default=20, static=True)
    noise: float = eqx.field(default=0.0, static=True)

    stepwise: ClassVar[bool] = True
    strength: ClassVar[str] = "radius"

    card: ClassVar[Card] = Card(
        name="Holomorphic equilibrium propagation",
        family="equilibrium",
        needs=Needs.ENERGY,
        source=("laborieux2022",),
        dossier=("S60",),
        local=True,
        weight_transport=True,
        phases=4,
        derivatives=True,
        limit="the gradient of the cost at the free rest state, with an error that falls like radius^points",
    )

    def __check_init__(self):
        """Refuse numbers out of their range."""
        positive("radius", self.radius)
        count("points", self.points, least=2)
        count("nudged_steps", self.nudged_steps)
        non_negative("noise", self.noise)

    def accept(self, model: PyTree) -> Energy:
        """Return the energy that this rule trains, with the free phase as its relaxation.

        Raises:
            TypeError: the model is no energy, or its units or the loss are not analytic; the message says what to
                pass instead.
        """
        energy = super().accept(model)
        shape = getattr(energy, "input_shape", None)
        if self.points > 2 and shape is not None:  # else the first batch will tell

            def move() -> State:
                x = jnp.zeros((1, *shape))
                state = _complex(energy.start(x))
                dynamics = self._dynamics(energy, Batch(x, jnp.zeros(1, int)), jnp.asarray(1j, _dtype(state)))
                return dynamics.project(dynamics.velocity(state))

            jax.eval_shape(move)
        return energy

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return the derivative of dF/dtheta along the nudge, from points on the circle."""
        model: Energy = learner.model
        key_free, key_nudged = jax.random.split(key)
        free = model.settle(batch.x, relaxation=self._noisy(self.free_phase), key=key_free)
        k = jnp.arange(self.points // 2 + 1)
        nudged = jnp.exp(2j * jnp.pi * k / self.points).astype(_dtype(free.state))
        betas = self.radius * nudged if self.points > 2 else self.radius * jnp.real(nudged)
        # A point off the real axis also stands for its conjugate.
        weights = jnp.where(2 * k % self.points == 0, 1, 2) / (self.points * betas)
        start = _complex(free.state) if self.points > 2 else free.state

        def settle(beta: Array, key: Array) -> Settled:
            return self._noisy(self.phase(self.nudged_steps))(self._dynamics(model, batch, beta), start, key=key)

        ends = jax.vmap(settle)(betas, jax.random.split(key_nudged, len(k)))

        def slope(weights: Array, betas: Array, states: State) -> PyTree:
            def total(model: Energy, beta: Array, state: State) -> Float[Array, ""]:
                cost = self.loss(model.output(state), batch.y)
                return jnp.mean(model.energy(state, batch.x) + beta * cost)

            def weighted(model: Energy) -> Float[Array, ""]:
                return weights @ jax.vmap(total, (None, 0, 0))(model, betas, states)

            return eqx.filter_grad(weighted)(model)

        slopes = continuation(slope)(weights, betas, ends.state)
        grads = jax.tree.map(lambda g, p: jnp.real(g).astype(p.dtype), slopes, learner.params[0])
        output = model.output(free.state)
        loss = jnp.mean(self.loss(output, batch.y))
        metrics = (
            report("free", free) | report("nudged", ends) | onset(model, free.state, batch, self.loss, self.radius)
        )
        return Credit(loss, output, (grads, None), learner.memory, metrics)

    def complaint(self, metrics: Mapping[str, float]) -> str | None:
        """Say that a phase does not settle; noisy units never do, and are not judged."""
        return None if self.noise else super().complaint(metrics)

    def _noisy(self, phase: Relaxation) -> Relaxation:
        """The relaxation of a phase, with the units' noise."""
        assert isinstance(phase, Iteration)  # else `stepwise` has had it refused
        return Noisy(phase, self.noise) if self.noise else phase

    def _dynamics(self, model: Energy, batch: Batch, beta: Complex[Array, ""] | Float[Array, ""]) -> Dynamics:
        """What moves the continued state under a nudge of beta."""

        def real(beta: Float[Array, ""]) -> Dynamics:
            return model.dynamics(batch.x, lambda state: beta * self.loss(model.output(state), batch.y))

        def continued(part: str) -> Callable[[State], State] | None:
            if getattr(real(jnp.real(beta)), part) is None:
                return None
            return partial(continuation(lambda beta, state: getattr(real(beta), part)(state)), beta)

        return Dynamics(*(continued(part) for part in Dynamics._fields))  # pyright: ignore[reportArgumentType]


def _dtype(state: State) -> jnp.dtype:
    """The complex numbers of a state: of its own precision, or of single where that is less."""
    return jnp.result_type(*jax.tree.leaves(state), 1j)


def _complex(state: State) -> State:
    """The state as complex numbers."""
    return jax.tree.map(lambda s: s.astype(_dtype(state)), state)
