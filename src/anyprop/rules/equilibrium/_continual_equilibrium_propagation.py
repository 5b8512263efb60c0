"""Continual equilibrium propagation: weights change at every step of the nudged phase, while the state moves.

    s_{t+1} = step(theta_t, s_t, beta),    s_0 the free state
    symmetric:  d_t = (dF/dtheta(theta_t, s_{t+1}) - dF/dtheta(theta_t, s_t)) / beta
    STDP:       d_t = -(rho(s_{t+1}) - rho(s_t)) rho(s_t)^T / beta            post changes, times pre
    theta_{t+1} = theta_t - eta d_t

    grad = sum_t d_t,   so that theta_T = theta_0 - eta grad
    centred:    a second nudged phase, with -beta and again from s_0, follows the first; d_t counts half in both

In continuous time the symmetric form is d/dt [rho_i rho_j] / beta, which integrates to the difference between the two
ends of the phase: no synapse has to remember the first. The STDP form keeps the half of it in which the unit above
changes, rho_j d rho_i/dt: the rate form of spike-timing-dependent plasticity.

Source: Scellier and Bengio 2017 for the path integral; Ernoult, Grollier, Querlioz, Bengio and Scellier 2020 for
weights that change meanwhile.

Exact limit: as eta -> 0 the symmetric form is equilibrium propagation, one-sided or centred, with a gap of O(eta).
"""

from typing import ClassVar, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from ..._checks import choose, count, non_negative, positive
from ...contract import Batch, Card, Credit, Learner, Needs
from ...energies import Energy, Nudge, Settled, State
from ...energies._layered import Layered
from ...energies._vector_field import directed
from ._rule import Settling, onset, report

Update = Literal["symmetric", "stdp"]
Variant = Literal["one-sided", "centred"]


class ContinualEquilibriumPropagation(Settling):
    """Continual equilibrium propagation: local in time too, as no synapse compares two phases.

    Use it to ask what a physical network does whose synapses never wait. Its update is what has happened to the weights
    by the end of the nudged phase, over the rate at which they moved: `optax.sgd(rate)` applies that exactly. Another
    optimizer takes it as a gradient, measured with weights that gave way.

    It reports `free_...` and `nudged_...` as `EquilibriumPropagation` does.

    Args:
        beta: strength of the nudge, in units of the energy per unit of the cost, above 0.
        rate: eta, how fast weights move within the nudged phase, 0 or more. At 0 they wait for the optimizer.
        update: `"symmetric"`, or `"stdp"` (only of chains): the change of the layer above times the rate of the one
            below.
        variant: `"one-sided"`, or `"centred"`: a phase nudged with beta and then one with -beta, which takes the error
            of first order in beta out of the update.
        nudged_steps: steps of a nudged phase. All of them are taken, as the weights are common to all examples.
        free_steps: steps of the free phase, at most.
        step_size: of each step of a gradient flow, in units of the units' time constant.
        tolerance: the free phase ends early for an example once none of its units moves faster than this; 0 or more.
        relaxation: `"gradient-flow"`, `"fixed-point"` (the discrete-time dynamics), `"sweeps"` (layer after layer), or
            an object of one of these kinds that brings its own steps and tolerance, `energies.FixedPoint(30, 1e-6)`.
            Nudged phases have `nudged_steps` of it.
        network: how a chain is read: `"hopfield"`, or `"convergent"`, whose state is its rates.
        loss: the cost C, by name or as a `Loss`.

    Raises:
        ValueError: a number is out of its range, a name is unknown, or `free_steps`, `step_size` or `tolerance` stands
            beside an object that has its own.
        TypeError: the relaxation is an object that repeats no single step.

    References:
        Scellier & Bengio. Equilibrium propagation: bridging the gap between energy-based models and
        backpropagation. Frontiers in Computational Neuroscience, 2017.
        Ernoult, Grollier, Querlioz, Bengio & Scellier. Equilibrium propagation with continual weight updates. 2020.
    """

    beta: float = 0.2
    rate: float = 0.005
    update: Update = eqx.field(default="symmetric", static=True)
    variant: Variant = eqx.field(default="one-sided", static=True)
    nudged_steps: int = eqx.field(default=20, static=True)

    stepwise: ClassVar[bool] = True

    card: ClassVar[Card] = Card(
        name="Continual equilibrium propagation",
        family="equilibrium",
        needs=Needs.ENERGY,
        source=("ernoult2020", "scellier2017"),
        dossier=("S57", "S66"),
        local=True,
        weight_transport=True,
        phases=3,
        derivatives=True,
        limit="equilibrium propagation, as the rate goes to 0",
    )

    def __check_init__(self):
        """Refuse numbers out of their range and unknown names."""
        positive("beta", self.beta)
        non_negative("rate", self.rate)
        choose("update", self.update, get_args(Update))
        choose("variant", self.variant, get_args(Variant))
        count("nudged_steps", self.nudged_steps)

    def accept(self, model: PyTree) -> Energy:
        """Return the energy that this rule trains, with the free phase as its relaxation.

        Raises:
            TypeError: the model is no energy, or one without layers while the update needs a layer above and one
                below; the message says what to pass instead.
        """
        energy = super().accept(model)
        if self.update == "stdp" and not isinstance(energy, Layered):
            raise TypeError(
                f"update='stdp' needs layers, but model is a {type(model).__name__}; pass a chain, or "
                "update='symmetric'"
            )
        return energy

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return the sum of what every step of the nudged phases did to the weights."""
        del key
        model: Energy = learner.model
        free = model.settle(batch.x)
        nudges = (self.beta, -self.beta) if self.variant == "centred" else (self.beta,)
        one_step = self.phase(1)

        def add(moved: PyTree, change: PyTree) -> PyTree:
            return jax.tree.map(lambda m, d: m + d / len(nudges), moved, change)

        def nudged(moved: PyTree, beta: float) -> tuple[PyTree, Settled]:
            def step(now: tuple[PyTree, Settled], _: None) -> tuple[tuple[PyTree, Settled], None]:
                moved, last = now
                model = eqx.apply_updates(learner.model, jax.tree.map(lambda d: -self.rate * d, moved))
                new = model.settle(batch.x, last.state, nudge=self._nudge(model, batch, beta), relaxation=one_step)
                change = eqx.filter_grad(self._contrast)(model, last.state, new.state, batch, beta)
                return (add(moved, change), new), None

            return jax.lax.scan(step, (moved, free), length=self.nudged_steps)[0]

        # With the onset of the nudge the cost joins the energy: only a readout with parameters of its own feels that.
        joined = eqx.filter_grad(lambda model: jnp.mean(self.loss(model.output(free.state), batch.y)))(model)
        grads, ends = jax.tree.map(jnp.zeros_like, joined), []
        for beta in nudges:
            grads, end = nudged(add(grads, joined), beta)
            ends.append(end._replace(steps=jnp.full_like(end.steps, self.nudged_steps)))
        output = model.output(free.state)
        loss = jnp.mean(self.loss(output, batch.y))
        end = jax.tree.map(lambda *phases: jnp.concatenate(phases), *ends)
        metrics = report("free", free) | report("nudged", end) | onset(model, free.state, batch, self.loss, self.beta)
        return Credit(loss, output, (grads, None), learner.memory, metrics)

    def _nudge(self, model: Energy, batch: Batch, beta: float) -> Nudge:
        """Beta C."""
        return lambda state: beta * self.loss(model.output(state), batch.y)

    def _contrast(self, model: Energy, before: State, after: State, batch: Batch, beta: float) -> Float[Array, ""]:
        """What a step's change of the weights is the gradient of."""
        if self.update == "symmetric":
            nudge = self._nudge(model, batch, beta)
            total = [model.energy(state, batch.x) + nudge(state) for state in (after, before)]
            return jnp.mean(total[0] - total[1]) / beta
        assert isinstance(model, Layered)  # else accept has refused it
        old, new = model.rates(before), model.rates(after)
        return -jnp.mean(directed(model.chain, jax.tree.map(jnp.subtract, new, old), old, batch.x)) / beta
