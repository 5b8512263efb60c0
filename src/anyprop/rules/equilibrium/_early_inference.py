"""Early inference: the first move that each layer makes after the outputs are nudged is its error.

From the free rest state s^0, with the outputs nudged by beta C, each step s <- s + eps ds/dt brings the nudge one layer
further down. Layer k first moves in step m = L - k + 1, and there

    Delta_k = (s_k(m) - s_k^0) / (beta eps^m)

is, of a Hopfield network, whose layers rest at s_k = rho'(s_k) * (W_k rho(s_{k-1}) + W_{k+1}^T rho(s_{k+1}) + b_k),

    Delta_L = -dC/ds_L,   Delta_{k-1} = rho'(s_{k-1}) * W_k^T (rho'(s_k) * Delta_k)

which is backprop of the cost through the layers' maps s_{k-1} -> s_k at rest. Then the input's rate times the first
change of the output's rate is the layer's update:

    dW_k ~ outer(rho(s_k(m)) - rho(s_k^0), rho(s_{k-1}^0)) / (beta eps^m)

Of a convergent network, whose state is its rates s_k = f_k(a_k), it is the same with rho(s) = s: then the first change
of s_k is -dC/da_k.

Source: Bengio and Fischer 2015.

Exact limit: as beta -> 0 from a settled free phase, backprop through s_k as a function of s_{k-1}, with rho'(s_k) and
what comes from above held fixed. It holds at any eps. It is not the gradient at rest: what travels up again has no part
in it.
"""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from ..._checks import positive
from ...contract import Batch, Card, Credit, Learner, Needs
from ...energies import Dynamics
from ...energies._layered import Activity, Layered, inner, walk
from ...energies._relaxation import Iteration
from ...nets import Activation, Residual
from ._rule import Settling, onset, report


class EarlyInference(Settling):
    """Early inference: every layer learns from the first move that it makes after the outputs are nudged.

    Use it to teach a network that settles without waiting for it to settle again: the nudged phase has one step a
    layer, and a layer's update is final as soon as the nudge has reached it. It is the rate form of plasticity by the
    timing of spikes: the input's rate times the change of the output's. It takes a chain whose layers follow one
    another, without residual blocks, or such a one read as `energies.Hopfield` or `energies.Convergent`; no other
    energy.

    A layer n below the outputs moves by about beta eps^(n+1) times its error, with eps the step size: 4e-4 times in the
    first of eight layers by default. What is left of the free phase's motion, `free_residual`, has to be far below
    that, and so has the rounding of the rates, 6e-8 of their size in single precision. With `relaxation="fixed-point"`
    eps is 1, and nothing is lost on the way down.

    It reports, as metrics that begin with `free_`: `steps` taken, the mean over the batch; `residual`, the speed of the
    batch's fastest unit at the end, and as `residual_1` and on that of each layer's; `converged`, the fraction of
    examples that settled to `tolerance`.

    Args:
        beta: strength of the nudge, in units of the energy per unit of the cost, above 0.
        free_steps: steps of the free phase, at most.
        step_size: eps, of each step of a gradient flow, in units of the units' time constant.
        tolerance: the free phase ends early for an example once none of its units moves faster than this; 0 or more.
        relaxation: what a step is: `"gradient-flow"`, `"fixed-point"` (the discrete-time dynamics), `"sweeps"`
            (layer after layer, upwards), or an object of one of these kinds that brings its own steps and tolerance,
            `energies.FixedPoint(30, 1e-6)`.
        network: how a chain is read: `"hopfield"`, or `"convergent"`, whose state is its rates.
        loss: the cost C, by name or as a `Loss`.

    Raises:
        ValueError: a number is out of its range, a name is unknown, or `free_steps`, `step_size` or `tolerance` stands
            beside an object that has its own.
        TypeError: the relaxation is an object that repeats no single step.

    References:
        Bengio & Fischer. Early inference in energy-based models approximates back-propagation. arXiv:1510.02777, 2015.
    """

    beta: float = 0.1

    stepwise: ClassVar[bool] = True

    card: ClassVar[Card] = Card(
        name="Early inference",
        family="equilibrium",
        needs=Needs.READING,
        source=("bengio2015early",),
        dossier=("S64",),
        local=True,
        weight_transport=True,
        phases=2,
        derivatives=True,
        limit="backprop through the layers' maps at the free rest state, as beta goes to 0",
    )

    def __check_init__(self):
        """Refuse a nudge out of its range."""
        positive("beta", self.beta)

    def accept(self, model: PyTree) -> Layered:
        """Return the layered energy that this rule trains, with the free phase as its relaxation.

        Raises:
            TypeError: it is not made of one layer after the other; the message says what to pass instead.
        """
        energy = super().accept(model)
        if not isinstance(energy, Layered) or any(isinstance(stage, Residual) for stage in energy.chain.stages):
            what = "a chain with residual blocks" if isinstance(energy, Layered) else f"a {type(energy).__name__}"
            raise TypeError(
                f"EarlyInference needs layers that a nudge reaches one after the other, but model is {what}; pass "
                "ap.nets.mlp(784, 500, 10, activation='hard-sigmoid', output='hard-sigmoid', key=key), an "
                "energies.Hopfield or energies.Convergent of such a chain, or choose EquilibriumPropagation"
            )
        return energy

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return each layer's first change of rate times the rate of its input."""
        del key
        model: Layered = learner.model
        free = model.settle(batch.x)
        dynamics = model.dynamics(batch.x, lambda state: self.beta * self.loss(model.output(state), batch.y))
        phase = self.free_phase
        assert isinstance(phase, Iteration)  # else `stepwise` has had it refused
        rates = model.rates(free.state)
        changes = [
            (model.rates(moved)[k] - rates[k]) / (self.beta * phase.duration**m)
            for k, m, moved in first_moves(phase, dynamics, free.state)
        ]

        def taught(model: Layered) -> Float[Array, ""]:
            """sum_k <first change of rate k, W_k rho(s_{k-1}) + b_k>, down the cost."""
            total, layers = jnp.zeros(()), iter(zip(changes, rates, strict=True))

            def respond(activation: Activation, drive: Activity) -> Activity:
                del activation
                nonlocal total
                change, rate = next(layers)
                total += jnp.mean(inner(change, drive))
                return rate

            walk(model.chain.stages, batch.x, respond)
            return -total

        output = model.output(free.state)
        loss = jnp.mean(self.loss(output, batch.y))
        metrics = report("free", free) | onset(model, free.state, batch, self.loss, self.beta)
        return Credit(loss, output, (eqx.filter_grad(taught)(model), None), learner.memory, metrics)


def first_moves(phase: Iteration, dynamics: Dynamics, rest: list[Activity]) -> list[tuple[int, int, list[Activity]]]:
    """Of each layer, its index, the step m in which a nudge of the outputs first moves it, and the state after it.

    Args:
        phase: what takes a step.
        dynamics: those of the nudged system.
        rest: where the free system rests.
    """
    depth = len(rest)

    def step(state: list[Activity], _: None) -> tuple[list[Activity], list[Activity]]:
        state = phase.step(dynamics, state)
        return state, state

    _, path = jax.lax.scan(step, rest, length=depth)
    return [(k, depth - k, [s[depth - k - 1] for s in path]) for k in range(depth)]
