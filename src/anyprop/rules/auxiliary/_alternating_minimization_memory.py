"""Online alternating minimisation with memory: each layer keeps the moments of all it has seen, and solves.

    codes as in `AlternatingMinimization`;  then for each hidden layer, with the moved codes on both sides,

    a = sigma_{l-1}(c_{l-1}),   A <- (1 - f) A + mean of a a^T,   B <- (1 - f) B + mean of c_l a^T
    W <- argmin_W  tr(W^T W A) - 2 tr(W^T B) + ridge ||W - W_old||^2

and a gradient step for the output. A convolution has an a for each place of its kernel, an Elman layer one for each
time step; the mean over examples is of their sums. The problem is that of all codes so far, sum_i ||c_i - W a_i||^2,
from two matrices whose size does not grow; f = 0 forgets nothing. Block coordinate descent goes over the inputs:

    W[:, j] += (B[:, j] - W A[:, j]) / A[j, j]        for j = 1, 2, ..., each with the columns before it

With A in its lower triangle T and the rest, that is one triangular solve for a pass over all columns,

    W += (B - W A) T^-T.

A sparse W is shrunk column by column on the way, W[:, j] <- sign(W[:, j]) max(|W[:, j]| - s, 0), which descends
the problem with 2 s sum_j A[j, j] |W[:, j]|_1 added.

Source: Choromanska et al. 2019; the memory is that of Mairal, Bach, Ponce and Sapiro 2009.

Exact limit: as ridge goes to zero, the solution is B A^-1, and passes over the columns converge to it.
"""

from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from ..._checks import choose, count, fraction, non_negative
from ...contract import Batch, Card, Credit, DataInfo, Learner, Needs
from ._codes import LeastSquaresRule, Moments, encode, hidden_weights, read, shift


class AlternatingMinimizationMemory(LeastSquaresRule):
    """Online alternating minimisation with memory (AM-mem): hidden layers solve for all codes seen so far.

    Use it where steps are few and a learning rate is unwelcome: hidden layers have none. They may be dense,
    convolutional (an input is a pixel of what the kernel sees) or an Elman layer (inputs and units of the step
    before), with hard units too. The price is a matrix of inputs x inputs for each layer, and a solve a step. Codes of
    long ago were made by other weights than today's; `forgetting` lets them go. Many units read a code of a
    convolution: LeNet-5 comes apart at the default `code_rate`, and learns at 0.003.

    The update is `old - new`: `optax.sgd(1.0)` applies it exactly.

    Args:
        solver: `"columns"` for block coordinate descent over the columns of the paper's W (the units that a
            layer reads), or `"solve"` for the exact solution.
        passes: passes of `"columns"` over all columns, each batch.
        forgetting: f, share of the memory that each batch displaces, at least 0 and below 1.
        ridge: weight of ||W - W_old||^2 in a layer's problem, in units of an activity squared, against the sum of
            all batches' means. It keeps weights from silent units as they are. Where the sum has grown so large that
            rounding would hide it, more is taken.
        output_rate: step size of the output layer.
        mu: weight of the distance between a code and what the layer below makes of it. The smaller, the
            further the codes follow the cost.
        code_steps: steps of each code.
        code_rate: step size of a code, down each example's own terms.
        code_sparsity: lambda, weight of the penalty |c|_1 on codes, of the norm that `reduction` makes.
        reduction: whether the norms of codes are a `"sum"` over a layer's units, as in the paper, or a
            `"mean"`, as in its code.
        mu_increase: what each batch adds to mu.
        mu_max: where mu stops growing; published as 10 `mu`. Default: nowhere.
        weight_sparsity: s, by how much a pass of `"columns"` brings each weight of a hidden layer, but no bias, closer
            to zero. Above 0 the columns are gone through one by one, which costs more than the triangular solve.
        loss: the cost, by name or as a `Loss`.

    Raises:
        ValueError: a number is out of its range, `solver` or `reduction` is unknown, or `solver` shrinks no weights.

    References:
        Choromanska, Cowen, Kumaravel, Luss, Rigotti, Rish, Diachille, Gurev, Kingsbury, Tejwani &
        Bouneffouf. Beyond backprop: online alternating minimization with auxiliary variables. ICML, 2019.

        Mairal, Bach, Ponce & Sapiro. Online dictionary learning for sparse coding. ICML, 2009.
    """

    solver: Literal["columns", "solve"] = eqx.field(default="columns", static=True, kw_only=True)
    passes: int = eqx.field(default=1, static=True, kw_only=True)
    forgetting: float = eqx.field(default=0.0, kw_only=True)
    weight_sparsity: float = eqx.field(default=0.0, kw_only=True)

    card: ClassVar[Card] = Card(
        name="Alternating minimisation with memory",
        family="auxiliary",
        needs=Needs.CHAIN,
        source=("choromanska2019", "mairal2009"),
        dossier=("S51",),
        local=True,
        weight_transport=True,
        phases=2,
        derivatives=True,
        limit="the least-squares solution B A^-1 in each hidden layer as ridge goes to 0",
        whole_step=True,
    )

    def __check_init__(self):
        """Refuse an unknown solver and numbers out of their range."""
        choose("solver", self.solver, ("columns", "solve"))
        count("passes", self.passes)
        fraction("forgetting", self.forgetting)
        non_negative("weight_sparsity", self.weight_sparsity)
        if self.weight_sparsity and self.solver != "columns":
            raise ValueError(
                f"weight_sparsity={self.weight_sparsity!r} shrinks weights in passes over the columns; pass "
                "solver='columns', or weight_sparsity=0"
            )

    def init(self, model: PyTree, *, data: DataInfo | None = None, key: Key[Array, ""]) -> Learner:
        """Start with nothing remembered, A = 0 and B = 0, and mu where it is said to start."""
        del data, key
        weights = hidden_weights(self.accept(model))
        nothing = [Moments(jnp.zeros((len(w), len(w)), w.dtype), jnp.zeros_like(w)) for w in weights]
        return Learner(model, memory=(self.first_mu(model), nothing))

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return old - new; `code_shift` says how far the codes moved, root mean square."""
        del key
        model, (mu, moments) = learner.model, learner.memory
        codes, output = encode(model, batch.x)
        moved = self.update_codes(model, batch, codes, mu)
        moments = jax.tree.map(
            lambda old, new: (1 - self.forgetting) * old + new, moments, self.moments(model, batch.x, moved)
        )
        *hidden, _ = read(model)
        solutions = [
            self.solution(seen, link.weights, bias=link.biased) for seen, link in zip(moments, hidden, strict=True)
        ]
        update = self.weight_update(model, batch, moved, solutions)
        loss = jnp.mean(self.loss(output, batch.y))
        metrics = {"mu": mu, "code_shift": shift(codes, moved)}
        return Credit(loss, output, (update, None), (self.next_mu(mu), moments), metrics)

    def solution(
        self, memory: Moments, weight: Float[Array, "in out"], *, bias: bool = False
    ) -> Float[Array, "in out"]:
        """Return the weights that minimise a layer's problem, or come closer to it by `passes` passes.

        Args:
            memory: what is remembered of the layer.
            weight: its weights, with a row an input.
            bias: whether the last row is the bias, which is not shrunk.
        """
        problem = memory.near(weight, self.ridge)
        if self.solver == "solve":
            return problem.solve()
        shrink = jnp.full(len(weight), self.weight_sparsity, weight.dtype).at[-1].multiply(not bias)
        for _ in range(self.passes):
            weight = problem.sparse_sweep(weight, shrink) if self.weight_sparsity else problem.sweep(weight)
        return weight
