"""Weight perturbation: change all weights at random, and see what it does to the cost.

    dW ~ N(0, sigma^2),   DL = L(W) - L(W + dW),

and then, on the same batch,

    "gradient"       grads = -DL dW / sigma^2,   whose mean is the gradient to first order
    "literal"        W <- W + DL dW,             whose mean is -sigma^2 times the gradient
    "improvements"   W <- W + dW  if DL > 0,  else W

With antithetic pairs DL = (L(W - dW) - L(W + dW)) / 2, free of the even terms of L.

Sources: Jabri and Flower 1992; Cauwenberghs 1993; Spall 1992 for the pairs.

Exact limit: E[grads] is the gradient of the cost averaged over N(W, sigma^2), so the gradient of L
itself where L is quadratic, or as sigma -> 0. The variance of a draw grows with the number of weights:
its cosine with the gradient is about 1 / sqrt(weights).
"""

from typing import ClassVar, Literal, get_args

import equinox as eqx
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PyTree

from ..._checks import choose, count, positive
from ...contract import Batch, Card, Credit, Learner, Needs, Rule
from ._draws import mean_of_draws

Form = Literal["gradient", "literal", "improvements"]


class WeightPerturbation(Rule):
    """Weight perturbation: the gradient of any callable, estimated from evaluations alone.

    Use it where no derivative can be had, such as on a physical device behind `jax.pure_callback`. It
    evaluates the model once, and once more for each draw (twice with pairs). It learns more slowly the
    more weights there are; where the model is a chain, `NodePerturbation` needs far fewer evaluations.

    Papers that scale the perturbation by a learning rate, W' = W + eta dW and W <- W + eta DL dW, know eta
    and their sigma only as a product: it is the `sigma` of this rule.

    Args:
        sigma: standard deviation of the change of each weight. Small against the weights, but large
            enough for DL to stand out from the rounding error of L.
        form: what becomes of a change. `"gradient"` estimates the gradient, for any optimizer.
            `"literal"` is the step of the papers, and `"improvements"` keeps a change that lowers the
            batch's cost and drops any other; both are applied exactly by `optax.sgd(1.0)`.
        draws: how many changes, or pairs of them, to average over.
        antithetic: try every change with both signs. The mean stays, and the part of the variance that
            comes from the curvature of L goes; it pays where sigma is large.
        loss: the cost, by name or as a `Loss`.

    Raises:
        ValueError: `sigma` is not above zero, `draws` is not a positive integer, `form` is unknown, or
            `"improvements"`, which judges one change at a time, is asked for several or for pairs.

    References:
        Jabri & Flower. Weight perturbation: an optimal architecture and learning technique for analog
        VLSI feedforward and recurrent multilayer networks. IEEE Transactions on Neural Networks, 1992.
        Cauwenberghs. A fast stochastic error-descent algorithm for supervised learning and
        optimization. NIPS, 1993.
        Spall. Multivariate stochastic approximation using a simultaneous perturbation gradient
        approximation. IEEE Transactions on Automatic Control, 1992.
    """

    sigma: float = 0.01
    form: Form = eqx.field(default="gradient", static=True)
    draws: int = eqx.field(default=1, static=True)
    antithetic: bool = eqx.field(default=False, static=True)

    card: ClassVar[Card] = Card(
        name="Weight perturbation",
        family="perturbation",
        needs=Needs.CALLABLE,
        source=("jabri1992", "cauwenberghs1993", "spall1992"),
        dossier=("S05",),
        local=True,
        weight_transport=False,
        phases=2,
        derivatives=False,
        limit="the gradient of a quadratic cost, in the mean over draws",
    )

    def __check_init__(self):
        """Refuse hyper-parameters that have no meaning."""
        positive("sigma", self.sigma)
        choose("form", self.form, get_args(Form))
        count("draws", self.draws)
        if self.form == "improvements" and (self.draws > 1 or self.antithetic):
            raise ValueError(
                f"form='improvements' judges one change at a time, so draws={self.draws} and "
                f"antithetic={self.antithetic} have no meaning; pass draws=1 and antithetic=False"
            )

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return the change, or the mean over changes, weighed by what it did to the cost."""
        weights, rest = eqx.partition(learner.model, eqx.is_inexact_array)

        def evaluate(weights: PyTree) -> tuple[Float[Array, ""], Array]:
            output = eqx.combine(weights, rest)(batch.x)
            return jnp.mean(self.loss(output, batch.y)), output

        loss, output = evaluate(weights)

        def trial(key: Key[Array, ""]) -> tuple[PyTree, Float[Array, ""]]:
            change = optax.tree.scale(self.sigma, optax.tree.random_like(key, weights))
            after, _ = evaluate(optax.tree.add(weights, change))
            if self.antithetic:
                before, _ = evaluate(optax.tree.sub(weights, change))
                improvement = (before - after) / 2
            else:
                improvement = loss - after
            share = {
                "gradient": improvement / self.sigma**2,
                "literal": improvement,
                "improvements": (improvement > 0).astype(loss.dtype),
            }[self.form]
            return optax.tree.scale(-share, change), improvement

        grads, improvement = mean_of_draws(trial, self.draws, key)
        return Credit(loss, output, (grads, None), learner.memory, {"improvement": improvement})
