"""Deep Boltzmann machines: mean field for what the data say, persistent chains for what the machine says.

    <dE/dtheta>_{q(h|x, y)} - <dE/dtheta>_{chains}
    q(h|x, y)   the independent units nearest to p(h|x, y), by `mean_field_steps` sweeps over the layers
    chains      states of the machine left to itself, which take `gibbs_steps` sweeps for each update

Mean field raises, sweep by sweep, the bound  log p(x, y) >= -E(x, mean of h, y) + H(q) - log Z.

Pre-training learns W_1, W_2, ... one after the other, as machines with one hidden layer. A hidden layer of the deep
machine will hear from both sides, so until then it hears the one side twice:

    h_k ~ p(2 W_k h_{k-1} + b_k), but W_k h_{k-1} at the top;   h_{k-1} ~ p(2 W_k^T h_k + b_{k-1}), but once for x

Joined, a layer's field is the average of the two, W_k h_{k-1} + W_{k+1}^T h_{k+1} + the mean of its two biases.

Source: Salakhutdinov and Hinton 2009.

Exact limit: with one hidden layer, persistent contrastive divergence, as q is p(h|x, y) there.
"""

from typing import ClassVar

import equinox as eqx
import jax
import optax
from jaxtyping import Array, Float, Key, PyTree, Shaped

from ..._checks import count
from ...contract import Batch, Card, Credit, DataInfo, Learner, Needs
from ...energies import Boltzmann
from ...energies._boltzmann_machine import Groups
from ...energies._relaxation import Relaxation, Sweeps
from ...nets import Chain
from ._boltzmann import LayeredRule, advance, label
from ._contrastive_divergence import ContrastiveDivergence
from ._rule import report


class DeepBoltzmann(LayeredRule):
    """The learning of deep Boltzmann machines: a variational data term, and fantasy particles for the model's.

    Use it on machines with more than one hidden layer. `pretrain_deep_boltzmann` finds weights to start from, without
    which the upper layers may stay unused.

        dbm = energies.Boltzmann(ap.nets.mlp(784, 500, 1000, activation="sigmoid", output="sigmoid", key=key))
        run = ap.fit(ap.DeepBoltzmann(loss="binary-cross-entropy"), dbm, images)

    `Credit.loss` is the cost of the reconstruction or of the classes, by mean field. How the mean field of the data
    ended is in `mean_field_steps`, `mean_field_residual` and `mean_field_converged`; the mean energies of the two
    sides are `clamped_energy` and `released_energy`. A mean field that is not at rest is not complained of: its update
    raises the bound of these means, which more sweeps only make tighter.

    Args:
        mean_field_steps: sweeps of mean field over the layers, at least 1.
        gibbs_steps: sweeps of Gibbs sampling that the chains take for each update, at least 1.
        particles: how many chains there are, at least 1.
        loss: the cost to report, by name or as a `Loss`: `"binary-cross-entropy"` for machines without a label.

    Raises:
        ValueError: a number is out of its range.

    References:
        Salakhutdinov & Hinton. Deep Boltzmann machines. AISTATS, 2009.
    """

    mean_field_steps: int = eqx.field(default=10, static=True)
    gibbs_steps: int = eqx.field(default=5, static=True)
    particles: int = eqx.field(default=100, static=True)

    card: ClassVar[Card] = Card(
        name="Deep Boltzmann machine",
        family="equilibrium",
        needs=Needs.BOLTZMANN,
        source=("salakhutdinov2009",),
        dossier=("S14",),
        local=True,
        weight_transport=True,
        phases=2,
        derivatives=False,
        limit="persistent contrastive divergence, with one hidden layer",
    )

    def __check_init__(self):
        """Refuse numbers out of their range."""
        count("mean_field_steps", self.mean_field_steps)
        count("gibbs_steps", self.gibbs_steps)
        count("particles", self.particles)

    def accept(self, model: PyTree) -> Boltzmann:
        """Return the machine that this rule trains, with its mean field as the relaxation.

        Raises:
            TypeError: it is neither a layered Boltzmann machine nor a chain that can be read as one.
            ValueError: the machine has no label, and the loss is for labels.
        """
        model = super().accept(model)
        sweeps = Sweeps(self.mean_field_steps)
        return eqx.tree_at(lambda m: m.relaxation, model, sweeps, is_leaf=lambda m: isinstance(m, Relaxation))

    def init(self, model: PyTree, *, data: DataInfo | None = None, key: Key[Array, ""]) -> Learner:
        """Read the model as a machine, and draw where the chains start.

        Raises:
            TypeError: the rule cannot train this kind of model; the message says what to pass instead.
            ValueError: see `accept`; or an input lies outside of the range of the visible units.
        """
        machine = self.fitting(model, data)
        return Learner(machine, memory=machine.start(self.particles, key=key))

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return the mean dE/dtheta at the data's mean field, less that of the chains."""
        model = learner.model
        data = model.mean_field(batch.x, label(model, batch))
        chains = advance(model, learner.memory, self.gibbs_steps, key)
        credit = self.compare(learner, batch, data.state, model.expect(chains), chains)
        return eqx.tree_at(lambda c: c.metrics, credit, {**credit.metrics, **report("mean_field", data)})


class _Pair(Boltzmann):
    """Two layers of a deep machine, and perhaps a label above them, that hear each other several times over."""

    up: int
    down: int

    def __init__(self, chain: Chain, *, labels: bool, bias: Float[Array, " visible"] | bool, up: int, down: int):
        super().__init__(chain, labels=labels, bias=bias)
        self.up, self.down = up, down

    def fields(self, state: Groups) -> Groups:
        """Return -dE/ds, with what comes from the lower layer `up` times and from the upper one `down` times."""
        below, above, *rest = super().fields(state)
        weight = self.layers[0].weight
        below += (self.down - 1) * state[1] @ weight.T
        return [below, above + (self.up - 1) * state[0] @ weight, *rest]


def pretrain_deep_boltzmann(
    machine: Boltzmann,
    x: Float[Array, "examples visible"],
    y: Shaped[Array, "examples ..."] | None = None,
    *,
    optimizer: optax.GradientTransformation,
    steps: int,
    batch_size: int = 100,
    cd_steps: int = 1,
    key: Key[Array, ""],
) -> Boltzmann:
    """Find weights for a deep Boltzmann machine to start from, a layer at a time by contrastive divergence.

    Args:
        machine: the machine; its present weights and biases are where each layer starts.
        x: the training data.
        y: their labels, for a machine with a label; it is learned together with the top layer.
        optimizer: an Optax optimizer, such as `optax.sgd(0.05)`.
        steps: updates of each layer, at least 1.
        batch_size: examples of an update, drawn at random, at least 1.
        cd_steps: steps of Gibbs sampling in each update, at least 1.
        key: random key.

    Raises:
        ValueError: a number is out of its range, or a label is missing.

    References:
        Salakhutdinov & Hinton. Deep Boltzmann machines. AISTATS, 2009.
    """
    count("steps", steps)
    count("batch_size", batch_size)
    if machine.labels and y is None:
        raise ValueError("y is missing: this machine has a label; pass the labels of x")
    stages, top = machine.layers, machine.hidden[-1]
    h, bias = x, machine.bias
    for k, key_layer in zip(machine.hidden, jax.random.split(key, top), strict=True):
        labels = machine.labels and k == top
        own = bias if k == 1 else stages[k - 2].bias
        pair = _Pair(
            Chain(stages[k - 1 : k + labels]),
            labels=labels,
            bias=own if own is not None else False,
            up=1 + (k < top),
            down=1 + (k > 1),
        )
        rule = ContrastiveDivergence(cd_steps, loss="cross-entropy" if labels else "binary-cross-entropy")
        pair = _train(
            rule, pair, Batch(h, y if labels and y is not None else h), optimizer, steps, batch_size, key_layer
        )
        stages[k - 1 : k + labels] = pair.layers
        if k == 1:
            bias = pair.bias
        elif own is not None and pair.bias is not None:
            stages[k - 2] = eqx.tree_at(lambda stage: stage.bias, stages[k - 2], 0.5 * (own + pair.bias))
        h = pair.expect(pair.start(len(h), x=h))[1]
    return Boltzmann(
        Chain(stages), labels=machine.labels, bias=False if bias is None else bias, relaxation=machine.relaxation
    )


def _train(
    rule: ContrastiveDivergence,
    machine: Boltzmann,
    data: Batch,
    optimizer: optax.GradientTransformation,
    steps: int,
    batch_size: int,
    key: Key[Array, ""],
) -> Boltzmann:
    """A machine after so many updates on batches drawn at random."""
    arrays, static = eqx.partition(rule.init(machine, key=key), eqx.is_array)

    def step(carry: tuple[PyTree, PyTree], key: Array) -> tuple[tuple[PyTree, PyTree], None]:
        learner = eqx.combine(carry[0], static)
        key_rows, key_credit = jax.random.split(key)
        rows = jax.random.randint(key_rows, (batch_size,), 0, len(data.x))
        credit = rule.credit(learner, Batch(data.x[rows], data.y[rows]), key=key_credit)
        updates, state = optimizer.update(credit.grads, carry[1], learner.params)
        return (eqx.filter(learner.apply(updates, credit.memory), eqx.is_array), state), None

    start = arrays, optimizer.init(eqx.combine(arrays, static).params)
    (arrays, _), _ = jax.lax.scan(step, start, jax.random.split(key, steps))
    return eqx.combine(arrays, static).model
