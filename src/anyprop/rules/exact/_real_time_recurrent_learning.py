"""Real-time recurrent learning: the exact gradient of a recurrent net, carried forward in time.

For h_t = f(a_t), a_t = x_t W + h_{t-1} R + b, stack the weights as theta = [W; R; b] with inputs
z_t = [x_t, h_{t-1}, 1], so that a_t = z_t theta. The influence P_t = d h_t / d theta follows

    P_t[k, m, u] = f'(a_t)_k ( sum_j R[j, k] P_{t-1}[j, m, u] + z_t[m] [k = u] ),   P_0 = 0
    g = sum_t sum_k (dC_t / dh_t)_k P_t[k]

Source: Williams and Zipser 1989.

Exact limit: backpropagation through time, to rounding.
"""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from ...contract import Batch, Card, Credit, Learner, Needs, Rule
from ...nets import Dense, Elman


class RealTimeRecurrentLearning(Rule):
    """Real-time recurrent learning (RTRL): gradients of a recurrent net without looking back.

    Use it on small Elman networks to learn from sequences of any length: memory does not grow with the
    sequence, and no past is stored. The price is the influence of every weight on every unit,
    batch x units^2 x (features + units + 1) numbers, and units times as much work a step.

    Args:
        loss: the cost, by name or as a `Loss`. For a network that answers at every step it must be a
            sum over time steps, as the built-in ones are.

    References:
        Williams & Zipser. A learning algorithm for continually running fully recurrent neural
        networks. Neural Computation, 1989.
    """

    card: ClassVar[Card] = Card(
        name="Real-time recurrent learning",
        family="exact",
        needs=Needs.ELMAN,
        source=("williams1989",),
        dossier=("S07",),
        local=False,
        weight_transport=True,
        phases=1,
        derivatives=True,
        limit="backpropagation through time",
    )

    def accept(self, model: PyTree) -> PyTree:
        """Return `model` if it is an Elman layer and a dense one, and nothing else."""
        model = super().accept(model)
        if not (len(model.stages) == 2 and isinstance(model.stages[1], Dense)):
            raise TypeError(
                "RealTimeRecurrentLearning needs an Elman layer directly followed by a dense one; pass "
                "ap.nets.elman(28, 100, 10, key=key)"
            )
        return model

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return the gradient of the batch's mean cost, accumulated forward in time."""
        del key
        elman, dense = learner.model.stages
        h = elman.start(batch.x)
        units, steps, features = h.shape[1], *batch.x.shape[1:]
        start = h, jnp.zeros((len(h), units, features + units + 1, units), h.dtype)

        def remember(t: Array, past: tuple[Array, Array]) -> tuple[Array, Array]:
            return advance(elman, *past, batch.x[:, t])

        def learn(past: tuple[Array, Array], y: Array) -> tuple[tuple[Array, Array, Dense], Array]:
            h, influence = past

            def cost(above: tuple[Dense, Array]) -> tuple[Array, Array]:
                dense, h = above
                output = dense(h)
                return jnp.mean(self.loss(output, y)), output

            (loss, output), (d_dense, error) = eqx.filter_value_and_grad(cost, has_aux=True)((dense, h))
            return (loss, jnp.einsum("nk,nkmu->mu", error, influence), d_dense), output

        if elman.sequence:

            def step(carry: tuple, t: Array) -> tuple[tuple, Array]:
                past, total = carry
                past = remember(t, past)
                now, output = learn(past, batch.y[:, t])
                return (past, jax.tree.map(jnp.add, total, now)), output

            shapes, _ = jax.eval_shape(learn, start, batch.y[:, 0])
            nothing = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
            (_, total), outputs = jax.lax.scan(step, (start, nothing), jnp.arange(steps))
            output = jnp.moveaxis(outputs, 0, 1)
        else:
            total, output = learn(jax.lax.fori_loop(0, steps, remember, start), batch.y)

        loss, d_theta, d_dense = total
        d_input, d_recurrent, d_bias = jnp.split(d_theta, [features, features + units])
        gradient = eqx.tree_at(
            lambda m: (m.stages[0].input.weight, m.stages[0].recurrent.weight, m.stages[1]),
            eqx.filter(learner.model, eqx.is_inexact_array),
            (d_input, d_recurrent, d_dense),
        )
        if elman.input.bias is not None:
            gradient = eqx.tree_at(lambda m: m.stages[0].input.bias, gradient, d_bias[0])
        return Credit(loss, output, (gradient, None), learner.memory)


def advance(
    elman: Elman,
    h: Float[Array, "batch units"],
    influence: Float[Array, "batch units inputs units"],
    x: Float[Array, "batch features"],
) -> tuple[Float[Array, "batch units"], Float[Array, "batch units inputs units"]]:
    """Return h_t and P_t from h_{t-1} and P_{t-1}."""
    a = elman.input(x) + elman.recurrent(h)
    h_new, slope = jax.jvp(elman.activation, (a,), (jnp.ones_like(a),))
    z = jnp.concatenate([x, h, jnp.ones_like(h[:, :1])], axis=1)
    through_the_past = jnp.einsum("jk,njmu->nkmu", elman.recurrent.weight, influence)
    direct = z[:, None, :, None] * jnp.eye(h.shape[1], dtype=h.dtype)[:, None, :]
    return h_new, slope[:, :, None, None] * (through_the_past + direct)
