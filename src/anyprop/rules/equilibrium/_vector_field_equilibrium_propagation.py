"""Equilibrium propagation in a vector field: without an energy, without symmetric weights.

    s^0    the rest of  ds/dt = mu(theta, s)                        free
    s^beta the rest of  ds/dt = mu(theta, s) - beta dC/ds           nudged

    grad = -(1/beta) (dmu/dtheta(s^0))^T (s^beta - s^0)

For mu_k = W_k rho(s_{k-1}) + B_k rho(s_{k+1}) + b_k - s_k that is a presynaptic rate times the change of a postsynaptic
potential: dW_k = -(1/beta) (s_k^beta - s_k^0) rho(s_{k-1}^0)^T, and in the same way for B_k.

With M = dmu/ds at rest, the gradient of the cost is -(dmu/dtheta)^T M^{-T} dC/ds, and the update, as beta -> 0,
-(dmu/dtheta)^T M^{-1} dC/ds: the same where M is symmetric. Nothing makes it so but learning itself. With shared
updates W_k and B_{k-1}^T keep their difference, which any weight decay then shrinks, as in Kolen and Pollack 1994.

Source: Scellier, Goyal, Binas, Mesnard and Bengio 2018; Laborieux et al. 2021 for shared updates.

Exact limit: -(dmu/dtheta)^T M^{-1} dC/ds as beta -> 0 in settled phases, with an error of O(beta).
"""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from ..._checks import count, positive
from ...contract import Batch, Card, Credit, DataInfo, Learner, Needs
from ...energies import VectorField
from ...energies._layered import inner
from ...nets import Chain, affines_above_first
from ._rule import Phases, _is_relaxation, onset, report


class VectorFieldEquilibriumPropagation(Phases):
    """Equilibrium propagation with feedback weights that differ from the forward ones, and are learned too.

    Use it to do without weight transport. A chain is read as an `energies.VectorField` with random feedback weights;
    a `VectorField` of your own can be passed instead. Both kinds of weights shape the prediction, so both belong to
    `Learner.model`. The update is the rate form of spike-timing-dependent plasticity, summed over the nudged phase.

    It reports `free_...` and `nudged_...` as `EquilibriumPropagation` does, and, for each layer k above the first,
    `feedback_trace_k`, the sum of the products of forward and feedback weights between layers k - 1 and k: the trace
    of B W, which grows as they align.

    Args:
        beta: strength of the nudge, in units of the field per unit of the cost's slope, above 0.
        nudged_steps: steps of the nudged phase, at most.
        feedback_scale: size of the feedback weights that are drawn, in units of what the initialisers of the forward
            ones draw, above 0. Strong random feedback may keep the network from coming to rest.
        shared_update: give the two weights between two layers the mean of their updates.
        free_steps: steps of the free phase, at most.
        step_size: of each step of a gradient flow, in units of the units' time constant.
        tolerance: a phase ends early for an example once none of its units moves faster than this; 0 or more.
        relaxation: `"gradient-flow"`, `"fixed-point"` (s <- s + mu), `"sweeps"` (layer after layer), or an object that
            brings its own steps and tolerance, `energies.FixedPoint(30, 1e-6)`. The nudged phase has `nudged_steps` of
            it at most.
        loss: the cost C on the potentials of the last layer, by name or as a `Loss`.

    Raises:
        ValueError: a number is out of its range, a name is unknown, or `free_steps`, `step_size` or `tolerance` stands
            beside an object that has its own.
        TypeError: the relaxation is an object that looks for no rest.

    References:
        Scellier, Goyal, Binas, Mesnard & Bengio. Generalization of equilibrium propagation to vector field dynamics.
        2018.
    """

    beta: float = 0.2
    nudged_steps: int = eqx.field(default=20, static=True)
    feedback_scale: float = 0.25
    shared_update: bool = eqx.field(default=False, static=True)

    card: ClassVar[Card] = Card(
        name="Equilibrium propagation in a vector field",
        family="equilibrium",
        needs=Needs.CHAIN,
        source=("scellier2018", "laborieux2021"),
        dossier=("S58",),
        local=True,
        weight_transport=False,
        phases=2,
        derivatives=False,
        limit="-(dmu/dtheta)^T (dmu/ds)^{-1} dC/ds, which is the gradient where dmu/ds is symmetric",
    )

    def __check_init__(self):
        """Refuse numbers out of their range."""
        positive("beta", self.beta)
        count("nudged_steps", self.nudged_steps)
        positive("feedback_scale", self.feedback_scale)

    def init(self, model: PyTree, *, data: DataInfo | None = None, key: Key[Array, ""]) -> Learner:
        """Read a chain as a vector field with random feedback weights.

        Raises:
            TypeError: the rule cannot train this kind of model; the message says what to pass instead.
        """
        del data
        free = self.free_phase
        if isinstance(model, VectorField):
            return Learner(eqx.tree_at(lambda m: m.relaxation, model, free, is_leaf=_is_relaxation))
        self.accept(model)
        assert isinstance(model, Chain)  # else accept has refused it
        return Learner(VectorField.drawn(model, scale=self.feedback_scale, relaxation=free, key=key))

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return presynaptic rates times changes of postsynaptic potentials."""
        del key
        model: VectorField = learner.model
        free = model.settle(batch.x)

        def pull(state: list[Array]) -> Float[Array, " batch"]:
            return self.beta * self.loss(model.output(state), batch.y)

        nudged = model.settle(batch.x, free.state, nudge=pull, relaxation=self.phase(self.nudged_steps))
        change = jax.tree.map(lambda after, before: (after - before) / self.beta, nudged.state, free.state)

        def against(model: VectorField) -> Float[Array, ""]:
            products = [inner(*pair) for pair in zip(model.field(free.state, batch.x), change, strict=True)]
            return -jnp.mean(jnp.stack(products).sum(axis=0))

        grads = eqx.filter_grad(against)(model)
        if self.shared_update:
            grads = _share(grads)
        output = model.output(free.state)
        loss = jnp.mean(self.loss(output, batch.y))
        forward = [site.weight for site in affines_above_first(model.chain)]
        traces = {
            f"feedback_trace_{k}": jnp.vdot(w, b)
            for k, (w, b) in enumerate(zip(forward, model.feedback, strict=True), 2)
        }
        metrics = report("free", free) | report("nudged", nudged) | traces
        metrics |= onset(model, free.state, batch, self.loss, self.beta)
        return Credit(loss, output, (grads, None), learner.memory, metrics)

    def feedback_weights(self, learner: Learner) -> list[Float[Array, "..."]]:
        """The weights B."""
        return learner.model.feedback


def _share(grads: VectorField) -> VectorField:
    """Give the forward and the feedback weight between two layers the mean of their updates."""

    def weights(field: VectorField) -> list[Any]:
        return [*(site.weight for site in affines_above_first(field.chain)), *field.feedback]

    own, pairs = weights(grads), len(grads.feedback)
    means = [(forward + back) / 2 for forward, back in zip(own[:pairs], own[pairs:], strict=True)]
    return eqx.tree_at(weights, grads, [*means, *means])
