"""Boltzmann machine learning: wake and sleep, or the same question with and without its answer.

    clamped    x and y are the data's; sample h
    released   "conditional": x is the data's; sample h and y      "joint": sample x, h and y ("sleep")

    <dE/dtheta>_clamped - <dE/dtheta>_released         for a weight, <s_i s_j>_released - <s_i s_j>_clamped

Each phase starts from a state drawn at random, takes `burn_in` sweeps of Gibbs sampling, and averages over `sweeps`
more.

Source: Ackley, Hinton and Sejnowski 1985.

Exact limit: as the chains mix, the gradient of -log p(y|x), or of -log p(x, y). It is without bias once `burn_in` is
several times the autocorrelation time (`diagnose.autocorrelation_time`), which grows steeply with the weights.
"""

from collections.abc import Collection
from typing import ClassVar, Literal, get_args

import equinox as eqx
import jax
from jaxtyping import Array, Key, PyTree

from ..._checks import choose, count
from ...contract import Batch, Card, Credit, Learner, Needs
from ...energies import Boltzmann
from ...energies._boltzmann_machine import BoltzmannMachine, Groups
from ...nets import Chain
from ._boltzmann import BoltzmannRule, label

Objective = Literal["conditional", "joint"]


class BoltzmannLearning(BoltzmannRule):
    """Boltzmann machine learning: the same Gibbs sampler with units clamped to the data, and with them released.

    Use it on any `energies.BoltzmannMachine`, layered or general. A chain is read as a layered one, whose last layer
    is the label. Layers draw all their units at once, so they are far faster.

    The sampler has to mix for the update to be what it should be, and mixes ever worse as weights grow.

    `Credit.loss` is the cost of the model's answer, by mean field or exact (see the model). The mean energies of the
    two phases are `clamped_energy` and `released_energy`.

    Args:
        objective: what the second phase releases: `"conditional"`, the label, to learn p(y|x); or `"joint"`, the
            visible units too, to learn p(x, y), or p(x) without a label.
        burn_in: sweeps before a phase begins to count, 0 or more.
        sweeps: sweeps that a phase is averaged over, at least 1.
        loss: the cost to report, by name or as a `Loss`: `"binary-cross-entropy"` for machines without a label.

    Raises:
        ValueError: a number is out of its range, or a name is unknown.

    References:
        Ackley, Hinton & Sejnowski. A learning algorithm for Boltzmann machines. Cognitive Science, 1985.
    """

    objective: Objective = eqx.field(default="conditional", static=True)
    burn_in: int = eqx.field(default=20, static=True)
    sweeps: int = eqx.field(default=10, static=True)

    card: ClassVar[Card] = Card(
        name="Boltzmann machine learning",
        family="equilibrium",
        needs=Needs.BOLTZMANN,
        source=("ackley1985",),
        dossier=("S12",),
        local=True,
        weight_transport=True,
        phases=2,
        derivatives=False,
        limit="the gradient of the negative log-likelihood, conditional or joint, once the chains have mixed",
    )

    def __check_init__(self):
        """Refuse numbers out of their range and unknown names."""
        choose("objective", self.objective, get_args(Objective))
        count("burn_in", self.burn_in, least=0)
        count("sweeps", self.sweeps)

    def accept(self, model: PyTree) -> BoltzmannMachine:
        """Return the machine that this rule trains.

        Raises:
            TypeError: it is neither a Boltzmann machine nor a chain that can be read as one.
            ValueError: the machine has no label, and the objective or the loss is about labels.
        """
        model = super().accept(model)
        if not model.labels and self.objective == "conditional":
            raise ValueError(
                "objective='conditional' releases the label, which the machine has not; pass objective='joint', or a "
                "machine with a label"
            )
        return model

    def read(self, chain: Chain) -> Boltzmann:
        """Return the machine that a chain is read as, without a bias of x where p(x) is not learned."""
        return Boltzmann(chain, labels=True, bias=self.objective == "joint")

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return the mean dE/dtheta of the clamped phase, less that of the released one."""
        model = learner.model
        key_clamped, key_released = jax.random.split(key)
        clamped = self.phase(model, model.hidden, batch, key_clamped)
        free = model.groups[1:] if self.objective == "conditional" else model.groups
        return self.compare(learner, batch, clamped, self.phase(model, free, batch, key_released))

    def phase(self, model: BoltzmannMachine, free: Collection[int], batch: Batch, key: Key[Array, ""]) -> Groups:
        """Return the states that a phase is averaged over, one after the other on the first axis.

        Args:
            model: the machine.
            free: the numbers of the groups that are not clamped to the data.
            batch: the data.
            key: random key.
        """
        key_start, key_burn_in, key_sweeps = jax.random.split(key, 3)
        drawn = model.start(len(batch.x), key=key_start)
        given = model.start(len(batch.x), x=batch.x, y=label(model, batch))
        state = [drawn[k] if k in free else given[k] for k in model.groups]

        def sweep(state: Groups, key: Key[Array, ""]) -> tuple[Groups, Groups]:
            state = model.sweep(state, free, key)
            return state, state

        state = jax.lax.scan(
            lambda state, key: (sweep(state, key)[0], None), state, jax.random.split(key_burn_in, self.burn_in)
        )[0]
        states = jax.lax.scan(sweep, state, jax.random.split(key_sweeps, self.sweeps))[1]
        return jax.tree.map(lambda s: s.reshape(-1, s.shape[-1]), states)
