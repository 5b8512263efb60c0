"""What the rules for Boltzmann machines share: how they read a model, and the difference of two phases."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree, Shaped

from ...contract import Batch, Credit, DataInfo, Learner, Rule
from ...energies import Boltzmann
from ...energies._boltzmann_machine import BoltzmannMachine, Groups
from ...losses import CrossEntropy
from ...nets import Chain


class BoltzmannRule(Rule):
    """A rule that trains a Boltzmann machine by the difference of its mean energy gradients in two phases."""

    def accept(self, model: PyTree) -> BoltzmannMachine:
        """Return the machine that this rule trains; a chain is read as one whose last layer is the label.

        Raises:
            TypeError: it is neither a Boltzmann machine nor a chain that can be read as one; the message says what
                to pass instead.
            ValueError: the machine has no label, and the loss is for labels.
        """
        model = super().accept(model)
        if isinstance(model, Chain):
            return self.read(model)
        if not isinstance(model, BoltzmannMachine):
            raise TypeError(
                f"{type(self).__name__} needs {self.card.needs}, but model is a {type(model).__name__}; pass "
                "ap.nets.mlp(784, 500, 10, activation='sigmoid', key=key), which is read with its last layer as the "
                "label, or an energies.Boltzmann or energies.GeneralBoltzmann"
            )
        if not model.labels and isinstance(self.loss, CrossEntropy):
            raise ValueError(
                f"the machine has no label, so it answers with its visible units; pass {type(self).__name__}("
                "loss='binary-cross-entropy') for the cost of its reconstruction"
            )
        return model

    def read(self, chain: Chain) -> Boltzmann:
        """Return the machine that a chain is read as."""
        return Boltzmann(chain, labels=True)

    def init(self, model: PyTree, *, data: DataInfo | None = None, key: Key[Array, ""]) -> Learner:
        """Read the model as a machine.

        Raises:
            TypeError: the rule cannot train this kind of model; the message says what to pass instead.
            ValueError: the machine has no label, and the loss or the data are for labels; or an input lies outside of
                the range of the visible units.
        """
        del key
        return Learner(self.fitting(model, data))

    def fitting(self, model: PyTree, data: DataInfo | None) -> BoltzmannMachine:
        """Return the machine that this rule trains, once it is clear that its units can be the data."""
        machine = self.accept(model)
        if data is not None and not machine.labels and jnp.issubdtype(data.y.dtype, jnp.integer):
            raise ValueError(
                "y is labels, but the machine has no label and answers with its visible units, so its targets are the "
                "inputs: load the data with reconstruct=True, or pass a machine that was made with labels"
            )
        if data is not None and data.low is not None and data.high is not None:
            states = machine.units[0].states(2)
            least, most = states.min(), states.max()
            if data.low < least or data.high > most:
                raise ValueError(
                    f"data has inputs from {data.low:.4g} to {data.high:.4g}, but the visible units are means between "
                    f"{least:g} and {most:g}; load it without standardise, scale it to this range, or pass a machine "
                    "with units of another kind"
                )
        return machine

    def compare(
        self,
        learner: Learner,
        batch: Batch,
        clamped: Groups,
        released: list[Float[Array, "chains _"]],
        memory: PyTree = None,
    ) -> Credit:
        """Return <dE/dtheta> of the clamped phase less that of the other, with the cost of the model's answer.

        Args:
            learner: the learner.
            batch: the examples.
            clamped: states with the data in them.
            released: states of the machine left to itself.
            memory: the rule's new memory.
        """

        def contrast(model: BoltzmannMachine) -> tuple[Array, dict[str, Array]]:
            up, down = jnp.mean(model.energy(clamped)), jnp.mean(model.energy(released))
            return up - down, {"clamped_energy": up, "released_energy": down}

        gradient, metrics = eqx.filter_grad(contrast, has_aux=True)(learner.model)
        output = learner.model(batch.x)
        return Credit(jnp.mean(self.loss(output, batch.y)), output, (gradient, None), memory, metrics)


class LayeredRule(BoltzmannRule):
    """A rule for Boltzmann machines in layers, which draws from them a layer at a time."""

    def accept(self, model: PyTree) -> Boltzmann:
        """Return the layered machine that this rule trains.

        Raises:
            TypeError: it is neither a layered Boltzmann machine nor a chain that can be read as one.
            ValueError: the machine has no label, and the loss is for labels.
        """
        model = super().accept(model)
        if not isinstance(model, Boltzmann):
            raise TypeError(
                f"{type(self).__name__} draws layer by layer, but model is a {type(model).__name__}; pass an "
                "energies.Boltzmann, or choose BoltzmannLearning"
            )
        return model


def label(model: BoltzmannMachine, batch: Batch) -> Shaped[Array, "batch ..."] | None:
    """The label to clamp, if the machine has one."""
    return batch.y if model.labels else None


def advance(model: Boltzmann, state: Groups, sweeps: int, key: Key[Array, ""]) -> Groups:
    """The state after so many sweeps of Gibbs sampling with nothing clamped."""
    return jax.lax.fori_loop(
        0, sweeps, lambda i, state: model.sweep(state, model.groups, jax.random.fold_in(key, i)), state
    )
