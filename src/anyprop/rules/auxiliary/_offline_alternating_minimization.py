"""Offline alternating minimisation: every training example keeps its codes, and each iteration sees them all.

    c_L, ..., c_1: steps down problems (4) and (5), from where the example's codes were left
    W_l     = argmin_W  mean ||c_l - W sigma_{l-1}(c_{l-1})||^2 + ridge ||W - W_old||^2,      l = 1..L
    W_{L+1} = W_{L+1} - rate d/dW  mean C(W sigma_L(c_L), y)

At its first visit an example's codes are those of a forward pass.

Source: Choromanska et al. 2019, where it is what the online methods are compared with.

Exact limit: with small rates no iteration over all examples raises the objective.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, PyTree

from ...contract import Batch, Card, Credit, DataInfo, Learner, Needs
from .._rows import count_examples, put_rows, row_index, take_rows
from ._blocks import one_example
from ._codes import LeastSquaresRule, encode, hidden_weights, shift


class OfflineAlternatingMinimization(LeastSquaresRule):
    """Offline alternating minimisation: codes kept for each example, weights solved for over all of them.

    Use it as the batch method that the online ones are measured against, or where the data are few. Hidden layers may
    be dense, convolutional or an Elman layer, with hard units too; each example keeps all of its codes. A step
    is an iteration of the method, so a batch is to hold the whole training set; on a part of it the rule
    runs, and fits the weights to that part alone.

    The update is `old - new`: `optax.sgd(1.0)` applies it exactly.

    Args:
        ridge: weight of ||W - W_old||^2 in a layer's problem, in units of an activity squared. It keeps
            the problem well-posed, and weights from silent units as they are.
        output_rate: step size of the output layer.
        mu: weight of the distance between a code and what the layer below makes of it.
        code_steps: steps of each code in an iteration.
        code_rate: step size of a code, down each example's own terms.
        code_sparsity: lambda, weight of the penalty |c|_1 on codes, of the norm that `reduction` makes.
        reduction: whether the norms of codes are a `"sum"` over a layer's units, as in the paper, or a
            `"mean"`, as in its code.
        mu_increase: what each iteration adds to mu.
        mu_max: where mu stops growing; published as 10 `mu`. Default: nowhere.
        loss: the cost, by name or as a `Loss`.

    Raises:
        ValueError: a number is out of its range, or `reduction` is unknown.

    References:
        Choromanska, Cowen, Kumaravel, Luss, Rigotti, Rish, Diachille, Gurev, Kingsbury, Tejwani &
        Bouneffouf. Beyond backprop: online alternating minimization with auxiliary variables. ICML, 2019.
    """

    card: ClassVar[Card] = Card(
        name="Offline alternating minimisation",
        family="auxiliary",
        needs=Needs.CHAIN,
        source=("choromanska2019",),
        dossier=("S48",),
        local=True,
        weight_transport=True,
        phases=2,
        derivatives=True,
        limit="no iteration over all examples raises the objective, with small rates",
        whole_step=True,
    )

    def init(self, model: PyTree, *, data: DataInfo | None = None, key: Key[Array, ""]) -> Learner:
        """Make room for the codes of every training example.

        Raises:
            TypeError: the rule cannot train this kind of model.
            ValueError: `data` is missing.
        """
        del key
        model = self.accept(model)
        examples = count_examples(type(self).__name__, data)
        codes, _ = jax.eval_shape(encode, model, one_example(model))
        room = [jnp.zeros((examples, *code.shape[1:]), code.dtype) for code in codes]
        return Learner(model, memory=(self.first_mu(model), (room, jnp.zeros(examples, bool))))

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return old - new.

        `objective` is that of the moved codes and the old weights, a mean over examples; `code_shift` says
        how far the codes moved, root mean square.

        Raises:
            ValueError: `batch.index` is missing.
        """
        del key
        model, index = learner.model, row_index(type(self).__name__, batch)
        mu, rows = learner.memory
        encoded, output = encode(model, batch.x)
        kept, visited = take_rows(rows, index)
        codes = [
            jnp.where(visited.reshape(-1, *[1] * (fresh.ndim - 1)), code, fresh)
            for code, fresh in zip(kept, encoded, strict=True)
        ]
        moved = self.update_codes(model, batch, codes, mu)
        solutions = [
            moments.near(weight, self.ridge).solve()
            for moments, weight in zip(self.moments(model, batch.x, moved), hidden_weights(model), strict=True)
        ]
        update = self.weight_update(model, batch, moved, solutions)
        rows = put_rows(rows, index, (moved, jnp.ones_like(visited)))
        loss = jnp.mean(self.loss(output, batch.y))
        objective = self.objective(model, batch, moved, mu)
        metrics = {"mu": mu, "objective": objective, "code_shift": shift(codes, moved)}
        return Credit(loss, output, (update, None), (self.next_mu(mu), rows), metrics)
