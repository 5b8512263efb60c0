"""Contrastive divergence: how k steps of Gibbs sampling lead away from the data.

    h_0 ~ p(h|v_0),   v_1 ~ p(v|h_0),   ...   v_k ~ p(v|h_{k-1})              v_0 the data, v = x, or x and y
    CD-k    <dE/dtheta(v_0, h)>_{p(h|v_0)} - <dE/dtheta(v_k, h)>_{p(h|v_k)}
    PCD     the same, with chains that start where they ended at the last update, rather than at the data

E is linear in h, so its mean over p(h|v) is E at the mean of h: for binary units dW = v_0 h_0^T - v_k h_k^T with
probabilities for both h.

Source: Hinton 2002; Tieleman 2008 for the persistent chains.

Exact limit: as k goes to infinity, the gradient of -log p(v_0). With persistent chains also at any k, for a learning
rate that goes to 0.
"""

from typing import ClassVar

import equinox as eqx
from jaxtyping import Array, Key, PyTree

from ..._checks import count
from ...contract import Batch, Card, Credit, DataInfo, Learner, Needs
from ...energies import Boltzmann
from ._boltzmann import LayeredRule, advance, label


class ContrastiveDivergence(LayeredRule):
    """Contrastive divergence, CD-k, and its persistent form, for machines with one hidden layer (RBMs).

    Use it to learn the density of binary data, or of intensities from 0 to 1 taken as means of binary units:

        images = ap.data.load("mnist", reconstruct=True)
        rbm = energies.Boltzmann(ap.nets.mlp(784, 500, output="sigmoid", key=key))
        run = ap.fit(ap.ContrastiveDivergence(loss="binary-cross-entropy"), rbm, images)

    A chain `mlp(784, 500, 10, activation="sigmoid", key=key)` is read as a machine whose visible units are x and the
    label, with 500 hidden ones between them: a classifier that learns p(x, y). Of p(y|x) alone the gradient is known
    exactly: `Backprop` takes it.

    CD-1 is the cheapest. It follows no gradient of anything, and leaves states of high probability alone that lie far
    from the data; a larger `steps`, or `persistent=True` with a small learning rate, finds them. `Credit.loss` is the
    cost of the reconstruction or of the classes, not what is minimised; `diagnose.annealed_importance` estimates the
    likelihood. `clamped_energy` and `released_energy` are the mean energies of the two sides.

    Args:
        steps: k, steps of Gibbs sampling for each update, at least 1.
        persistent: keep the chains from one update to the next (PCD).
        particles: how many chains are kept, at least 1; only with `persistent`. Otherwise each example has its own.
        loss: the cost to report, by name or as a `Loss`: `"binary-cross-entropy"` for machines without a label.

    Raises:
        ValueError: a number is out of its range.

    References:
        Hinton. Training products of experts by minimizing contrastive divergence. Neural Computation, 2002.
        Tieleman. Training restricted Boltzmann machines using approximations to the likelihood gradient. ICML 2008.
    """

    steps: int = eqx.field(default=1, static=True)
    persistent: bool = eqx.field(default=False, static=True)
    particles: int = eqx.field(default=100, static=True)

    card: ClassVar[Card] = Card(
        name="Contrastive divergence",
        family="equilibrium",
        needs=Needs.BOLTZMANN,
        source=("hinton2002", "tieleman2008"),
        dossier=("S13",),
        local=True,
        weight_transport=True,
        phases=2,
        derivatives=False,
        limit="the gradient of the negative log-likelihood, as the number of steps goes to infinity",
    )

    def __check_init__(self):
        """Refuse numbers out of their range."""
        count("steps", self.steps)
        count("particles", self.particles)

    def accept(self, model: PyTree) -> Boltzmann:
        """Return the machine with one hidden layer that this rule trains.

        Raises:
            TypeError: it is something else; the message says what to pass instead.
            ValueError: the machine has no label, and the loss is for labels.
        """
        model = super().accept(model)
        if len(model.hidden) != 1:
            raise TypeError(
                f"ContrastiveDivergence needs a machine with one hidden layer, but model has {len(model.hidden)}; pass "
                "ap.nets.mlp(784, 500, 10, activation='sigmoid', key=key), or choose DeepBoltzmann or BoltzmannLearning"
            )
        return model

    def init(self, model: PyTree, *, data: DataInfo | None = None, key: Key[Array, ""]) -> Learner:
        """Read the model as a machine; with `persistent`, draw where the chains start.

        Raises:
            TypeError: the rule cannot train this kind of model; the message says what to pass instead.
            ValueError: see `accept`; or an input lies outside of the range of the visible units.
        """
        machine = self.fitting(model, data)
        return Learner(machine, memory=machine.start(self.particles, key=key) if self.persistent else None)

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return the mean dE/dtheta at the data, less that after `steps` steps of Gibbs sampling."""
        model = learner.model
        data = model.start(len(batch.x), x=batch.x, y=label(model, batch))
        chains = advance(model, learner.memory if self.persistent else data, self.steps, key)
        return self.compare(
            learner, batch, model.expect(data), model.expect(chains), chains if self.persistent else None
        )
