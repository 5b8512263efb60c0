"""Iterative target propagation: hidden activities settle between x and y, then every layer learns from them.

    start    h_0 = x,   h_l = f_l(h_{l-1}),   then clamp h_L = y
    settle   N times, for l = L-1 ... 1:
        h_l += s_l delta [ f_l(h_{l-1}) - f_l(g_l(h_l))                    to reconstruct x better
                         + g_{l+1}(h_{l+1}) - g_{l+1}(f_{l+1}(h_l)) ]      to reconstruct y better
    learn    the delta rule, on inputs with noise:  f_l(h_{l-1}) -> h_l,   g_l(h_l) -> h_{l-1}

The second bracket is the difference target, g(new h_{l+1}) - g(old h_{l+1}), where the old one is what the
layer below makes of it. Where g_{l+1} undoes f_{l+1}, both brackets together climb

    log p(x, h, y) = log p(x|h_1) + sum_l log p(h_l|h_{l+1}) + log p(y|h_{L-1})

with unit Gaussians around the g_l, and the loss for the last term: settling is MAP inference of h, learning the
M step of EM. Elsewhere they need not climb, however small delta is. So h_l, example by example, stays where it was
if the step would lower the two terms that it is in, and s_l, 1 at first, is halved.

Sources: Bengio, Lee, Bornschein, Mesnard and Lin 2015 (there without y and s_l); Lee, Zhang, Fischer and Bengio 2015.

Exact limits: one linear hidden layer with g_l = f_l^T settles on argmax_h log p(x, h, y); with exact inverses and
delta = 1 the first step leads to the difference targets of y.
"""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from ..._checks import choose, count, non_negative, positive
from ...contract import Batch, Card, Credit, DataInfo, Learner, Needs, Rule
from ...losses import targets
from ...nets import INITIALISERS, Chain, Series, layers
from .._traces import trace_shapes
from ._layerwise import Activity, activities, inverse, nonlinearity, refuse_hard_layers, refuse_hinge
from ._two_way import corrupt, delta_rule, ends, from_below, log_normal, settle


class IterativeTargetPropagation(Rule):
    """Iterative target propagation: activities that explain both x and y, and layers that learn them.

    Use it where learning is to have no separate backward phase: every unit follows its two neighbours until
    they agree, and every weight then learns by the delta rule. The inverses, `learner.feedback`, lead from y
    down to x, so the trained stack reconstructs the input as well. A step costs about `iterations` times
    backprop's; difference target propagation is far cheaper and more accurate.

    `Credit.metrics` has the log-likelihood log p(x, h, y) along the settling, less the Gaussians' constants:
    `"joint"`, `iterations` + 1 values; `"joint_first"` and `"joint_last"`. It never falls, and rises further the
    better the two ways have learned to undo each other.

    Args:
        iterations: N, how often the activities move, at least 1.
        rate: delta, how far they move each time, above 0; 1 goes all the way to a difference target. Where this would
            lower the likelihood, a layer stays, and moves half as far the next time.
        noise: standard deviation of the Gaussian noise on what layers and inverses learn from, in the units of
            the activities, 0 or more.
        init_inverse: initialiser of the inverses' weights, by name (see `nets.initialiser`).
        loss: the cost, -log p(y|h_{L-1}), by name or as a `Loss`; not the hinge, which is no -log p.

    Raises:
        ValueError: a number is out of its range, a name is unknown, or the loss is the hinge.

    References:
        Bengio, Lee, Bornschein, Mesnard & Lin. Towards biologically plausible deep learning.
        arXiv:1502.04156, 2015.
    """

    iterations: int = eqx.field(default=15, static=True)
    rate: float = 0.1
    noise: float = 0.1
    init_inverse: str = eqx.field(default="orthogonal", static=True)

    card: ClassVar[Card] = Card(
        name="Iterative target propagation",
        family="targets",
        needs=Needs.CHAIN,
        source=("bengio2015", "lee2015"),
        dossier=("S31",),
        local=True,
        weight_transport=False,
        phases=1,
        derivatives=True,
        limit="MAP inference in a linear net with transposed inverses; difference targets with exact ones",
    )

    def __check_init__(self):
        """Refuse numbers out of their range, unknown names, and the hinge."""
        count("iterations", self.iterations)
        positive("rate", self.rate)
        non_negative("noise", self.noise)
        choose("init_inverse", self.init_inverse, INITIALISERS)
        refuse_hinge(self.loss)

    def accept(self, model: PyTree) -> PyTree:
        """Return `model` if its layers have one activity each.

        Raises:
            TypeError: it is not a chain, has a recurrent layer, or a layer that is itself a sign or a step; the
                message says what to pass instead.
        """
        model = super().accept(model)
        trace_shapes(model)
        refuse_hard_layers(self, model)
        return model

    def init(self, model: PyTree, *, data: DataInfo | None = None, key: Key[Array, ""]) -> Learner:
        """Draw g_1 ... g_L, each with the nonlinearity of the layer it leads back to; g_1 to x is linear."""
        del data
        f = layers(self.accept(model))
        x = jax.ShapeDtypeStruct((1, *model.input_shape), trace_shapes(model)[0].input.dtype)
        below = jax.eval_shape(activities, model, x)
        ranges = ["identity", *map(nonlinearity, f[:-1])]
        g = [
            inverse(up, h, activation=activation, init=self.init_inverse, key=k)
            for up, h, activation, k in zip(f, below, ranges, jax.random.split(key, len(f)), strict=False)
        ]
        return Learner(model, feedback=g)

    def infer(
        self, model: Chain, inverses: list[Series], h: list[Activity]
    ) -> tuple[list[Activity], Float[Array, " states"]]:
        """Settle the hidden activities between a clamped input and a clamped answer.

        Args:
            model: f_1 ... f_L.
            inverses: g_1 ... g_L.
            h: h_0 = x, the hidden activities to start from, and h_L = y in the shape of the output.

        Returns:
            All h, and the batch's mean of log p(x, h, y) at the start and after each iteration.
        """
        x, y, top, last = h[0], h[-1], layers(model)[-1], len(h) - 2

        def own(h: list[Activity], i: int) -> Float[Array, " batch"]:
            """The densities of the joint in which h_i is: log p(h_{i-1}|h_i) + log p(h_i|h_{i+1})."""
            above = log_normal(h[i], inverses[i](h[i + 1])) if i < last else -self.loss(top(h[i]), y)
            return log_normal(h[i - 1], inverses[i - 1](h[i])) + above

        def step(state: tuple[list[Activity], list[Array]]) -> tuple[list[Activity], list[Array]]:
            between, shares = state
            h, shares = [x, *between, y], [jnp.zeros(()), *shares]
            for i in range(last, 0, -1):
                way = self.displacement(model, inverses, h, i)
                moved = list(h)
                moved[i] += self.rate * jax.vmap(jnp.multiply)(shares[i], way)
                reached = own(h, i)
                # Close to a maximum only rounding decides, and must not end the way there.
                better = own(moved, i) >= reached - 10 * jnp.finfo(reached.dtype).eps * jnp.abs(reached)
                h[i] = jax.vmap(jnp.where)(better, moved[i], h[i])
                shares[i] = jnp.where(better, shares[i], shares[i] / 2)
            return h[1:-1], shares[1:]

        def joint(state: tuple[list[Activity], list[Array]]) -> Float[Array, " batch"]:
            *below, above = [x, *state[0]]
            reconstructed = (log_normal(h, g(up)) for h, g, up in zip(below, inverses, state[0], strict=False))
            return sum(reconstructed, start=-self.loss(top(above), y))

        whole = [jnp.ones(len(x), x.dtype) for _ in h[1:-1]]
        (between, _), trace = settle(step, joint, (h[1:-1], whole), self.iterations)
        return [x, *between, y], trace

    def displacement(self, model: Chain, inverses: list[Series], h: list[Activity], i: int) -> Activity:
        """f_i(h_{i-1}) - f_i(g_i(h_i)) + g_{i+1}(h_{i+1}) - g_{i+1}(f_{i+1}(h_i)): where h_i would go at delta = 1."""
        *f, top = layers(model)
        f, g = [*f, lambda below: self.loss.expected(top(below))], inverses
        return from_below(f[i - 1], g[i - 1], h[i - 1], h[i]) + g[i](h[i + 1]) - g[i](f[i](h[i]))

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Settle, and return the delta rule of every layer and every inverse."""
        *h, output = activities(learner.model, batch.x)
        h, trace = self.infer(learner.model, learner.feedback, [*h, targets(output, batch.y)])
        noisy = corrupt(h, self.noise, key)

        def cost(params: tuple[Chain, list[Series]]) -> Array:
            model, g = params
            *f, top = layers(model)
            answer = jnp.mean(self.loss(top(noisy[-2]), batch.y))
            return delta_rule(f, noisy[:-2], h[1:-1]) + answer + delta_rule(g, noisy[1:], h[:-1])

        grads = eqx.filter_grad(cost)((learner.model, learner.feedback))
        return Credit(jnp.mean(self.loss(output, batch.y)), output, grads, learner.memory, ends(trace))
