"""Backprop through relaxation: the settling network unrolled in time, as any recurrent network.

    s_{t+1} = step(theta, s_t, x),  t = 0 ... T - 1,    C = C(s_T, y)

    grad = sum_{t = T-K}^{T-1} (d s_{t+1} / d theta)^T dC/ds_{t+1}         backwards through the last K steps
           + (d s_0 / d theta)^T dC/ds_0  where K = T                      and through the start

Source: Werbos 1990; Ernoult, Grollier, Querlioz, Bengio and Scellier 2019, who compare equilibrium propagation with it.

Exact limit: with K = T, the gradient of the cost after T steps; as K grows at rest, the gradient of the cost at rest.
"""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from ..._checks import count
from ...contract import Batch, Card, Credit, Learner, Needs
from ...energies import Energy, Relaxation, Settled, State
from ...energies._relaxation import Iteration, settled, speeds
from ._rule import Settling, error_speed, report


class BackpropThroughRelaxation(Settling):
    """Backprop through the last steps of a relaxation: the baseline that equilibrium propagation is measured against.

    Use it to tell what a network could learn from what its rule makes of it. It remembers every state on its way back.
    It reports `free_...` as `EquilibriumPropagation` does.

    Args:
        backward_steps: K, how many of the last steps the error travels back through; at most `free_steps`.
        free_steps: T, steps of the relaxation, at most.
        step_size: of each step of a gradient flow, in units of the units' time constant.
        tolerance: the steps before the last K end early for an example once none of its units moves faster than
            this; 0 or more.
        relaxation: `"gradient-flow"`, `"fixed-point"` (the discrete-time dynamics), `"sweeps"` (layer after layer), or
            an object of one of these kinds that brings its own steps and tolerance, `energies.FixedPoint(30, 1e-6)`.
        network: how a chain is read: `"hopfield"`, or `"convergent"`, whose state is its rates.
        loss: the cost C, by name or as a `Loss`.

    Raises:
        ValueError: a number is out of its range, a name is unknown, or `free_steps`, `step_size` or `tolerance` stands
            beside an object that has its own.
        TypeError: the relaxation is an object that repeats no single step.

    References:
        Werbos. Backpropagation through time: what it does and how to do it. Proceedings of the IEEE, 1990.
        Ernoult, Grollier, Querlioz, Bengio & Scellier. Updates of equilibrium prop match gradients of backprop
        through time in an RNN with static input. NeurIPS 2019.
    """

    backward_steps: int = eqx.field(default=20, static=True)

    stepwise: ClassVar[bool] = True

    card: ClassVar[Card] = Card(
        name="Backprop through relaxation",
        family="equilibrium",
        needs=Needs.ENERGY,
        source=("werbos1990", "ernoult2019"),
        dossier=("S61",),
        local=False,
        weight_transport=True,
        phases=2,
        derivatives=True,
        limit="the gradient of the cost at the end of the relaxation, once it goes back through all of it",
    )

    def __check_init__(self):
        """Refuse numbers out of their range."""
        count("backward_steps", self.backward_steps)
        own = isinstance(self.relaxation, Relaxation)
        steps = self.free_phase.steps if own else self.free_steps
        if self.backward_steps > steps:
            free = f"the {steps} steps of relaxation" if own else f"free_steps={steps}"
            raise ValueError(f"backward_steps={self.backward_steps} must be at most {free}")

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return the gradient through the last steps."""
        del key
        model: Energy = learner.model
        phase = self.free_phase
        assert isinstance(phase, Iteration)  # else `stepwise` has had it refused
        late, early = None, jnp.zeros(len(batch.x), int)
        if rest := phase.steps - self.backward_steps:
            before = model.settle(batch.x, relaxation=self.phase(rest))
            late, early = jax.lax.stop_gradient(before.state), before.steps

        def cost(model: Energy) -> tuple[Array, tuple[Array, Settled]]:
            dynamics = model.dynamics(batch.x)
            # Where all steps are gone back through, so is what the parameters make of the start.
            start = model.start(batch.x) if late is None else late

            def step(pair: tuple[State, State], _: None) -> tuple[tuple[State, State], None]:
                return (pair[1], phase.step(dynamics, pair[1])), None

            (last, state), _ = jax.lax.scan(step, (start, start), length=self.backward_steps)
            end = settled(state, early + self.backward_steps, speeds(last, state, phase.duration), phase.tolerance)
            output = model.output(state)
            return jnp.mean(self.loss(output, batch.y)), (output, end)

        (loss, (output, end)), grads = eqx.filter_value_and_grad(cost, has_aux=True)(model)
        # Back through all steps it is the gradient of what they led to, at rest or not.
        metrics = report("free", end) | (error_speed(model, end.state, batch, self.loss) if rest else {})
        return Credit(loss, output, (grads, None), learner.memory, metrics)
