"""Equilibrium propagation: nudge a settled system towards the answer, and see what gives.

    F(theta, beta, s) = E(theta, s, x) + beta C(s, y)         the total energy of one example
    s^beta = the rest of  ds/dt = -dF/ds                      s^0 the free one, from which the others start

    one-sided, random-sign:  (dF/dtheta(beta, s^beta) - dF/dtheta(0, s^0)) / beta
    centred:                 (dF/dtheta(beta, s^beta) - dF/dtheta(-beta, s^-beta)) / (2 beta)

For the Hopfield energy, dE/dW_k = -rho(s_k) rho(s_{k-1})^T: the difference of a Hebbian term between two phases.
A random sign of beta, drawn for each batch, takes the error of first order out of the mean update at the price of
one nudged phase; the centred form takes it out of every update at the price of two.

Source: Scellier and Bengio 2017; Laborieux, Ernoult, Scellier, Bengio, Grollier and Querlioz 2021 for the centred
form.

Exact limit: as beta -> 0, the gradient of the mean of C(s^0, y), provided that the phases have settled. The error
is O(beta) one-sided and O(beta^2) centred.
"""

from typing import ClassVar, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from ..._checks import choose, count, positive
from ...contract import Batch, Card, Credit, DataInfo, Learner, Needs
from ...energies import Device, Energy, Settled, State
from .._rows import count_examples, put_rows, row_index, take_rows
from ._rule import Settling, onset, report

Variant = Literal["one-sided", "centred", "random-sign"]


class EquilibriumPropagation(Settling):
    """Equilibrium propagation: the energy's parameter gradient in a nudged phase, minus that in the free phase.

    Use it on systems that compute by settling. A chain is read as a network whose weights act in both directions,
    `energies.Hopfield` or `energies.Convergent`; any `energies.Energy` can be passed instead. `Learner.model` is that
    energy, with this rule's free phase as its relaxation: it predicts by settling from its start. The phases differ
    in nothing but the nudge, so no second circuit carries errors. An `energies.Device`, whose equations nobody needs
    to know, is trained by what it measures; it settles in its own way, and without particles.

    The published Hopfield networks, with `variant="random-sign"`, `particles=True`, batches of 20, and
    `optax.partition` for a rate of each layer's own; beta and rates are twice those of the authors' code, whose cost
    is the squared error without the half:

    | network | beta | free steps | nudged steps | rates, first to last layer |
    |---|---|---|---|---|
    | 784-500-10 | 1.0 | 20 | 4 | 0.2, 0.1 |
    | 784-500-500-10 | 2.0 | 100 | 6 | 0.8, 0.2, 0.02 |
    | 784-500-500-500-10 | 2.0 | 500 | 8 | 0.256, 0.064, 0.016, 0.004 |

    It reports, as metrics that begin with `free_` or, of all nudged phases, with `nudged_`: `steps` taken, the mean
    over the batch; `residual`, the speed of the batch's fastest unit at the end, and as `residual_1` and on that of
    each layer's; `converged`, the fraction of examples that settled to `tolerance`.

    Args:
        beta: strength of the nudge, in units of the energy per unit of the cost, above 0. A nudge of -beta pushes
            away from the answer: against squared error, output units without bounds withstand it below 1.
        variant: `"one-sided"`, `"centred"` (nudged phases with beta and with -beta), or `"random-sign"`.
        nudged_steps: steps of a nudged phase, at most. An error needs a step for each layer on its way down.
        particles: start an example's free phase from where its last one ended; needs `data`.
        free_steps: steps of the free phase, at most.
        step_size: of each step of a gradient flow, in units of the units' time constant.
        tolerance: a phase ends early for an example once none of its units moves faster than this; 0 or more. A
            nudge is first felt as a speed of about beta times the error: a tolerance has to be far below that.
        relaxation: `"gradient-flow"`, `"fixed-point"` (the discrete-time dynamics), `"sweeps"` (layer after layer), or
            an object that brings its own steps and tolerance, `energies.FixedPoint(30, 1e-6)`, or that of an energy,
            `energy.relaxation`. Nudged phases have `nudged_steps` of it at most.
        network: how a chain is read: `"hopfield"`, or `"convergent"`, whose state is its rates, so that smooth units
            settle in discrete time too.
        loss: the cost C, by name or as a `Loss`.

    Raises:
        ValueError: a number is out of its range, a name is unknown, or `free_steps`, `step_size` or `tolerance` stands
            beside an object that has its own.
        TypeError: the relaxation is an object that looks for no rest.

    References:
        Scellier & Bengio. Equilibrium propagation: bridging the gap between energy-based models and
        backpropagation. Frontiers in Computational Neuroscience, 2017.
        Laborieux, Ernoult, Scellier, Bengio, Grollier & Querlioz. Scaling equilibrium propagation to deep ConvNets
        by drastically reducing its gradient estimator bias. Frontiers in Neuroscience, 2021.
    """

    beta: float = 0.5
    variant: Variant = eqx.field(default="centred", static=True)
    nudged_steps: int = eqx.field(default=20, static=True)
    particles: bool = eqx.field(default=False, static=True)

    card: ClassVar[Card] = Card(
        name="Equilibrium propagation",
        family="equilibrium",
        needs=Needs.ENERGY,
        source=("scellier2017", "laborieux2021", "ernoult2019", "kendall2020"),
        dossier=("S53", "S54", "S61", "S62", "S63"),
        local=True,
        weight_transport=True,
        phases=3,
        derivatives=True,
        limit="the gradient of the cost at the free rest state, as beta goes to 0 in settled phases",
    )

    def __check_init__(self):
        """Refuse numbers out of their range and unknown names."""
        positive("beta", self.beta)
        choose("variant", self.variant, get_args(Variant))
        count("nudged_steps", self.nudged_steps)

    # Wider than what it overrides: `credit` asks nothing of an energy that a device cannot do.
    def accept(self, model: PyTree) -> Device:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the system that this rule trains: a device as it is, anything else as `Settling` reads it.

        Raises:
            TypeError: it is none of these; or a device is to start from states kept for each example.
        """
        if not isinstance(model, Device) or isinstance(model, Energy):
            return super().accept(model)
        if self.particles:
            raise TypeError(
                f"particles=True puts the system into states, which a device such as {type(model).__name__} need not "
                "allow; pass particles=False"
            )
        return model

    def init(self, model: PyTree, *, data: DataInfo | None = None, key: Key[Array, ""]) -> Learner:
        """Read the model as an energy; with `particles`, keep a state for every training example.

        Raises:
            TypeError: the rule cannot train this kind of model; the message says what to pass instead.
            ValueError: `particles` is set and `data` is missing.
        """
        del key
        system = self.accept(model)
        if not self.particles:
            return Learner(system)
        assert isinstance(system, Energy)  # else accept has refused it
        examples = count_examples("EquilibriumPropagation(particles=True)", data)
        assert data is not None  # else count_examples has refused it
        start = system.start(jnp.zeros((1, *data.x.shape), data.x.dtype))
        return Learner(system, memory=jax.tree.map(lambda s: jnp.repeat(s, examples, axis=0), start))

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return the difference of dF/dtheta between two phases, over the difference of their nudges."""
        model, memory = learner.model, learner.memory
        key_sign, key_free, key_nudged, key_opposite = jax.random.split(key, 4)

        def nudge(beta: float | Array, key: Key[Array, ""]) -> Settled:
            def pull(state: State) -> Float[Array, " batch"]:
                return beta * self.loss(model.output(state), batch.y)

            return model.settle(batch.x, free.state, nudge=pull, relaxation=self.phase(self.nudged_steps), key=key)

        if self.particles:
            index = row_index("EquilibriumPropagation(particles=True)", batch)
            free = model.settle(batch.x, take_rows(memory, index), key=key_free)
            memory = put_rows(memory, index, free.state)
        else:
            free = model.settle(batch.x, key=key_free)
        if self.variant == "random-sign":
            high, low = self.beta * jax.random.rademacher(key_sign, (), free.residual.dtype), 0.0
        else:
            high, low = self.beta, -self.beta if self.variant == "centred" else 0.0
        nudged = nudge(high, key_nudged)
        opposite, ends = free, nudged
        if self.variant == "centred":
            opposite = nudge(low, key_opposite)
            ends = jax.tree.map(lambda *phases: jnp.concatenate(phases), nudged, opposite)

        def contrast_of_costs(model: Device) -> Float[Array, ""]:
            above, below = (self.loss(model.output(end.state), batch.y) for end in (nudged, opposite))
            return jnp.mean(high * above - low * below) / (high - low)

        # The cost depends on parameters by itself only where the readout has some; elsewhere this is zero.
        grads = jax.tree.map(
            lambda contrast, cost: contrast / (high - low) + cost,
            model.contrast(nudged.state, opposite.state, batch.x),
            eqx.filter_grad(contrast_of_costs)(model),
        )
        output = model.output(free.state)
        loss = jnp.mean(self.loss(output, batch.y))
        metrics = report("free", free) | report("nudged", ends)
        if isinstance(model, Energy):  # a device has a time constant of its own
            metrics |= onset(model, free.state, batch, self.loss, high)
        return Credit(loss, output, (grads, None), memory, metrics)
