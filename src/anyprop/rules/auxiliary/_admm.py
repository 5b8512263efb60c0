"""Training without gradients: every block of weights and activities in closed form.

With z_l the pre-activations, a_l the activities (a_0 = x), h the activation, one row of each for every
training example:

    min  l(z_L, y) + <lambda, z_L> + beta ||z_L - W_L a_{L-1}||^2
         + sum_{l<L} [ gamma ||a_l - h(z_l)||^2 + beta ||z_l - W_l a_{l-1}||^2 ]

One step minimises one block after the other, for l = 1 .. L-1

    W_l = z_l a_{l-1}^+
    a_l = (beta W_{l+1}^T W_{l+1} + gamma I)^-1 (beta W_{l+1}^T z_{l+1} + gamma h(z_l))
    z_l = argmin_z  gamma (a_l - h(z))^2 + beta (z - m_l)^2,      m_l = W_l a_{l-1},   entry by entry

and then

    W_L = z_L a_{L-1}^+,    z_L = argmin_z  l(z, y) + lambda z + beta (z - m_L)^2,    lambda += beta (z_L - m_L).

A bias is the weight of a unit that is always 1. The pseudo-inverse needs the sums of a a^T and a z^T over
the examples alone, so that with examples on several devices the weights cost one sum over the devices.

Block coordinate descent (`solver="bcd"`) has the same blocks with lambda = 0, and adds
alpha/2 ||new - old||^2 to each.

Source: Taylor, Burmeister, Xu, Singh, Patel and Goldstein 2016; the descent is that of Zeng, Lau, Lin and
Yao 2019 and Lau, Zeng, Wu and Yao 2018.

Exact limit: each block is the minimiser of the objective in it; block coordinate descent never raises it.
"""

import itertools
from typing import ClassVar, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from ..._checks import choose, count, positive
from ...contract import Batch, Card, Credit, DataInfo, Learner, Needs, Rule
from ...losses import Hinge, Loss, SquaredError, as_loss, targets
from ...nets import ACTIVATIONS, Activation, Affine, Chain, Dense, activation, affines, assemble
from .._rows import count_examples, put_rows, row_index, take_rows
from ._codes import above_rounding

Solver = Literal["admm", "bcd"]
Start = Literal["normal", "forward"]

PIECES: dict[Activation, tuple[tuple[float, float, float], ...]] = {
    activation("identity"): ((1.0, -jnp.inf, jnp.inf),),
    activation("relu"): ((0.0, -jnp.inf, 0.0), (1.0, 0.0, jnp.inf)),
    activation("hard-sigmoid"): ((0.0, -jnp.inf, 0.0), (1.0, 0.0, 1.0), (0.0, 1.0, jnp.inf)),
}
"""Activations that are linear in pieces: of each piece its slope (0, or 1 where h(z) = z), and its two ends."""


class Variables(eqx.Module):
    """What ADMM keeps for every training example, one row each.

    Args:
        a: activities of the hidden layers, first to last.
        z: pre-activations of all layers, first to last.
        multiplier: lambda, of the output layer's pre-activations.
        warm: steps left without multiplier.
        fresh: whether the example has not been seen.
    """

    a: tuple[Float[Array, "examples _"], ...]
    z: tuple[Float[Array, "examples _"], ...]
    multiplier: Float[Array, "examples outputs"]
    warm: Int[Array, " examples"]
    fresh: Bool[Array, " examples"]


class ADMM(Rule):
    """ADMM: weights and activities by least squares and entrywise minimisation, without gradients.

    Use it on dense nets of units that are linear in pieces, with the whole training set as one batch, perhaps
    sharded over many devices: they sum two small matrices a layer, but gather what is kept for every example
    as well, since the batch's index may name any row. From a mini-batch it solves for the weights that fit
    this batch alone. The update is `old - new` of weights that are solved for, which `optax.sgd(1.0)` applies
    exactly. It needs `data`, since it keeps a, z and lambda for every training example.

    `loss` is the method's own l, over whose minimum it has a closed form. `Credit.loss` is the same cost of
    the network's prediction, and `Credit.output` the network's prediction, both before the update. Two classes
    can do with one output, as in the paper's 28-300-1: above 1/2 it says label 1.

    It reports, after the step and as means over the batch, `objective`, the cost above without the
    multiplier's term, and `violation`, sum_l ||z_l - W_l a_{l-1}||^2 + sum_{l<L} ||a_l - h(z_l)||^2.

    Args:
        solver: `"admm"`, or `"bcd"` for proximal block coordinate descent, which has no multiplier.
        start: what a and z are at first: `"normal"`, drawn from a normal distribution as in the paper, or
            `"forward"`, what the net computes from x, which needs fewer steps where inputs have many features.
        gamma: weight of ||a_l - h(z_l)||^2.
        beta: weight of ||z_l - W_l a_{l-1}||^2.
        warm_start: steps that an example takes before its multiplier moves; `"admm"` only. Not negative.
        ridge: added to the eigenvalues of sum a a^T, in units of their sum, so that the pseudo-inverse is
            stable; `"admm"` only. Raise it where examples hardly outnumber the units of a layer.
        proximal: alpha, weight of the squared distance to the old block; `"bcd"` only.
        loss: l, as a `Loss`: `Hinge()` or `SquaredError()`.

    Raises:
        ValueError: `solver` or `start` is unknown, `warm_start` is negative, another number is not positive, or
            `loss` has no closed form.

    References:
        Taylor, Burmeister, Xu, Singh, Patel & Goldstein. Training neural networks without gradients: a
        scalable ADMM approach. ICML, 2016.
        Zeng, Lau, Lin & Yao. Global convergence of block coordinate descent in deep learning. ICML, 2019.
        Lau, Zeng, Wu & Yao. A proximal block coordinate descent algorithm for deep neural network
        training. ICLR workshop, 2018.
    """

    solver: Solver = eqx.field(default="admm", static=True)
    start: Start = eqx.field(default="normal", static=True)
    gamma: float = 10.0
    beta: float = 1.0
    warm_start: int = eqx.field(default=10, static=True)
    ridge: float = 1e-6
    proximal: float = 1.0
    loss: Loss = eqx.field(default_factory=Hinge, converter=as_loss, kw_only=True)

    card: ClassVar[Card] = Card(
        name="ADMM without gradients",
        family="auxiliary",
        needs=Needs.CHAIN,
        source=("taylor2016", "zeng2019", "lau2018"),
        dossier=("S46", "S47"),
        local=True,
        weight_transport=True,
        phases=1,
        derivatives=False,
        limit="each block is the objective's minimum over it",
        whole_step=True,
    )

    def __check_init__(self):
        """Refuse hyper-parameters out of range, and losses without closed form."""
        choose("solver", self.solver, get_args(Solver))
        choose("start", self.start, get_args(Start))
        for name in ("gamma", "beta", "ridge", "proximal"):
            positive(name, getattr(self, name))
        count("warm_start", self.warm_start, least=0)
        if not isinstance(self.loss, Hinge | SquaredError):
            raise ValueError(
                f"loss={type(self.loss).__name__}() has no minimum over the output in closed form; pass "
                "loss=Hinge() or loss=SquaredError()"
            )

    def accept(self, model: PyTree) -> Chain:
        """Return `model` if it has dense layers only, all linear in pieces, the last one linear."""
        model = super().accept(model)
        for i, stage in enumerate(model.stages):
            if not isinstance(stage, Dense):
                raise TypeError(
                    f"ADMM solves for dense layers, but stages[{i}] is a {type(stage).__name__}; pass a chain of "
                    "dense layers such as ap.nets.mlp(784, 300, 10, activation='relu', key=key), or choose "
                    "MethodOfAuxiliaryCoordinates"
                )
            last = i == len(model.stages) - 1
            allowed = [f for f in PIECES if not last or f is activation("identity")]
            if stage.activation not in allowed:
                names = [name for name, f in ACTIVATIONS.items() if f in allowed]
                raise TypeError(
                    f"ADMM has no closed form for the activation of stages[{i}]; pass {' or '.join(names)}, or choose "
                    "AlternatingMinimization"
                )
        return model

    def init(self, model: PyTree, *, data: DataInfo | None = None, key: Key[Array, ""]) -> Learner:
        """Draw a and z for every training example.

        Raises:
            TypeError: ADMM cannot train this model; the message says what to pass instead.
            ValueError: `data` is missing.
        """
        model = self.accept(model)
        examples = count_examples("ADMM", data)
        weights = [site.weight for site in affines(model)]

        def draw(key: Array, weights: list[Array]) -> tuple[Array, ...]:
            keys = jax.random.split(key, len(weights))
            return tuple(
                jax.random.normal(k, (examples, w.shape[1]), w.dtype) for k, w in zip(keys, weights, strict=True)
            )

        key_z, key_a = jax.random.split(key)
        z = draw(key_z, weights)
        a = draw(key_a, weights[:-1]) if weights[1:] else ()
        warm, fresh = jnp.full(examples, self.warm_start), jnp.full(examples, True)
        return Learner(model, memory=Variables(a, z, jnp.zeros_like(z[-1]), warm, fresh))

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return old - new of the weights, after one sweep over all blocks."""
        del key
        index, examples = row_index("ADMM", batch), len(learner.memory.warm)
        mine = take_rows(learner.memory, index)
        sites = affines(learner.model)
        output, traces = learner.model.record(batch.x)
        forward = (mine.fresh & (self.start == "forward"))[:, None]
        a = [batch.x, *(jnp.where(forward, trace.output, a) for trace, a in zip(traces, mine.a, strict=False))]
        z = [jnp.where(forward, trace.drive, z) for trace, z in zip(traces, mine.z, strict=True)]
        new = list(sites)
        for l, (site, above) in enumerate(itertools.pairwise(sites)):
            new[l] = self._weights(site, a[l], z[l], examples)
            a[l + 1] = self._activity(a[l + 1], above, z[l + 1], site.activation(z[l]))
            z[l] = self._hidden(z[l], new[l].drive(a[l]), a[l + 1], site.activation)
        new[-1] = self._weights(sites[-1], a[-1], z[-1], examples)
        m = new[-1].drive(a[-1])
        z[-1] = self._output(z[-1], m, mine.multiplier, batch.y)
        moves = (mine.warm == 0)[:, None] & (self.solver == "admm")
        multiplier = mine.multiplier + jnp.where(moves, self.beta * (z[-1] - m), 0)
        warm, fresh = jnp.maximum(mine.warm - 1, 0), jnp.zeros_like(mine.fresh)
        memory = put_rows(learner.memory, index, Variables(tuple(a[1:]), tuple(z), multiplier, warm, fresh))
        update = [
            jax.tree.map(jnp.subtract, (old.weight, old.bias), (site.weight, site.bias))
            for old, site in zip(sites, new, strict=True)
        ]
        return Credit(
            jnp.mean(self.loss(output, batch.y)),
            output,
            (assemble(learner.model, update), None),
            memory,
            self._metrics(new, a, z, batch.y),
        )

    @property
    def _pull(self) -> float:
        """Half of alpha: the weight of ||new - old||^2."""
        return self.proximal / 2 if self.solver == "bcd" else 0.0

    def _weights(self, site: Affine, a: Array, z: Array, examples: int) -> Affine:
        """The layer with the weights that minimise beta ||z - W a||^2."""
        ones = [] if site.bias is None else [jnp.ones((len(a), 1), a.dtype)]
        old = site.weight if site.bias is None else jnp.vstack([site.weight, site.bias])
        inputs = jnp.hstack([a, *ones])
        # Means, not sums: the batch stands for the whole training set.
        square, product = inputs.T @ inputs / len(a), inputs.T @ z / len(a)
        if self.solver == "admm":
            pull, old = self.ridge * jnp.trace(square), jnp.zeros_like(old)
        else:
            pull = jnp.maximum(self._pull / (self.beta * examples), above_rounding(square))
        solution = cho_solve(cho_factor(square + pull * jnp.eye(len(square))), product + pull * old)
        weight, bias = (solution, None) if site.bias is None else (solution[:-1], solution[-1])
        return eqx.tree_at(lambda s: (s.weight, s.bias), site, (weight, bias), is_leaf=lambda leaf: leaf is None)

    def _activity(self, a: Array, above: Affine, z_above: Array, h: Array) -> Array:
        """argmin_a  gamma ||a - h||^2 + beta ||z_above - W_above a||^2."""
        W = above.weight  # rows are the units of a
        bias = 0 if above.bias is None else above.bias
        square = self.beta * W @ W.T + (self.gamma + self._pull) * jnp.eye(len(W))
        product = self.beta * (z_above - bias) @ W.T + self.gamma * h + self._pull * a
        return cho_solve(cho_factor(square), product.T).T

    def _near(self, z: Array, m: Array) -> tuple[float, Array]:
        """The weight and the centre of beta (z' - m)^2 + alpha/2 (z' - z)^2 as one square in z'."""
        beta = self.beta + self._pull
        return beta, (self.beta * m + self._pull * z) / beta

    def _hidden(self, z: Array, m: Array, a: Array, h: Activation) -> Array:
        """argmin_z  gamma (a - h(z))^2 + beta (z - m)^2, entry by entry: the best of the pieces' minima."""
        beta, m = self._near(z, m)
        candidates = jnp.stack(
            [
                jnp.clip((self.gamma * slope * a + beta * m) / (self.gamma * slope + beta), low, high)
                for slope, low, high in PIECES[h]
            ]
        )
        costs = self.gamma * (a - h(candidates)) ** 2 + beta * (candidates - m) ** 2
        return jnp.take_along_axis(candidates, jnp.argmin(costs, axis=0)[None], axis=0)[0]

    def _output(self, z: Array, m: Array, multiplier: Array, y: Array) -> Array:
        """argmin_z  l(z, y) + lambda z + beta (z - m)^2, entry by entry."""
        beta, m = self._near(z, m)
        m, y = m - multiplier / (2 * beta), targets(z, y)
        if isinstance(self.loss, SquaredError):
            return (y + 2 * beta * m) / (1 + 2 * beta)
        slide = 1 / (2 * beta)  # as far as a slope of 1 moves the minimum
        up, down = jnp.clip(m + slide, max=jnp.maximum(m, 1)), jnp.clip(m - slide, min=jnp.minimum(m, 0))
        return jnp.where(y > 0.5, up, down)

    def _metrics(self, sites: list[Affine], a: list[Array], z: list[Array], y: Array) -> dict[str, Array]:
        """The objective and the constraints' violation, as means over examples."""
        drives = sum(jnp.sum((z[l] - site.drive(a[l])) ** 2, -1) for l, site in enumerate(sites))
        activities = sum(jnp.sum((a[l + 1] - site.activation(z[l])) ** 2, -1) for l, site in enumerate(sites[:-1]))
        return {
            "objective": jnp.mean(self.loss(z[-1], y) + self.gamma * activities + self.beta * drives),
            "violation": jnp.mean(activities + drives),
        }
