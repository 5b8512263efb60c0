"""Forward gradient: the slope of the cost along one random direction, times that direction.

    weights:      v ~ N(0, I),     g = (dC . v) v
    activities:   xi_l ~ N(0, I),  error_l = (sum_l dC/da_l . xi_l) xi_l for each example,
                  dW_l = mean over examples of outer(error_l, h_{l-1})

The slope is exact: a tangent carried along in the forward pass. Since E[v v^T] = I the estimate is unbiased.

Source: Baydin et al. 2022; Silver et al. 2022; on activities Ren et al. 2023.

Exact limit: its mean is the gradient g; E ||estimate||^2 = (n + 2) ||g||^2 for n parameters.
"""

from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PyTree

from ..._checks import choose, count
from ...contract import Batch, Card, Credit, Learner, Needs, Rule
from ...nets import Chain, assemble, local_update, sites
from .._noise import draw, drives, perturb


class ForwardGradient(Rule):
    """Forward gradient: an unbiased estimate of the gradient from forward passes alone.

    Use it where a backward pass is not to be had. One draw costs a forward pass with its tangent,
    which takes as many matrix products as backprop, and the random numbers. The noise grows with what is
    perturbed: the estimate's variance is (n + 1) ||g||^2 for n weights, so wide nets need small learning
    rates or many draws; on activities n counts units, and each example has a slope of its own.

    Args:
        perturb: `"weights"` takes the tangent in the parameters of any differentiable model;
            `"activities"` in the pre-activations of a chain.
        draws: number of random directions that an update averages over. Memory and time grow with it.
        loss: the cost, by name or as a `Loss`.

    Raises:
        ValueError: `perturb` is unknown or `draws` is not a positive integer.

    References:
        Baydin, Pearlmutter, Syme, Wood & Torr. Gradients without backpropagation. arXiv 2202.08587, 2022.
        Silver, Goyal, Danihelka, Hessel & van Hasselt. Learning by directional gradient descent.
        ICLR, 2022.
        Ren, Kornblith, Liao & Hinton. Scaling forward gradient with local losses. ICLR, 2023.
    """

    perturb: Literal["weights", "activities"] = eqx.field(default="weights", static=True)
    draws: int = eqx.field(default=1, static=True)

    card: ClassVar[Card] = Card(
        name="Forward gradient",
        family="exact",
        needs=Needs.DIFFERENTIABLE,
        source=("baydin2022", "silver2022", "ren2023"),
        dossier=("S08",),
        local=True,
        weight_transport=False,
        phases=1,
        derivatives=True,
        limit="the gradient in the mean over draws",
    )

    def __check_init__(self):
        """Refuse an unknown place to perturb and a number of draws below one."""
        choose("perturb", self.perturb, ["weights", "activities"])
        count("draws", self.draws)

    def accept(self, model: PyTree) -> PyTree:
        """Return `model` if what is to be perturbed can be reached."""
        model = super().accept(model)
        if self.perturb == "activities":
            if not isinstance(model, Chain):
                raise TypeError(
                    f"perturb='activities' needs a chain, but model is a {type(model).__name__}; build one "
                    "with ap.nets, convert an equinox.nn.Sequential with ap.nets.from_equinox, or pass "
                    "perturb='weights'"
                )
            dtype = sites(model)[0].weight.dtype
            drives(model, jax.ShapeDtypeStruct((1, *model.input_shape), dtype))  # refuses recurrence
        return model

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return the mean over draws of slope times direction."""
        keys = jax.random.split(key, self.draws)
        estimate = self._on_weights if self.perturb == "weights" else self._on_activities
        loss, output, gradient = estimate(learner.model, batch, keys)
        return Credit(loss, output, (gradient, None), learner.memory)

    def _on_weights(
        self, model: PyTree, batch: Batch, keys: Key[Array, " draws"]
    ) -> tuple[Float[Array, ""], Float[Array, "batch ..."], PyTree]:
        params, rest = eqx.partition(model, eqx.is_inexact_array)

        def cost(params: PyTree) -> tuple[Array, Array]:
            output = eqx.combine(params, rest)(batch.x)
            return jnp.mean(self.loss(output, batch.y)), output

        def once(key: Array) -> tuple[tuple[Array, Array], PyTree]:
            v = optax.tree.random_like(key, params, jax.random.normal)
            loss, slope, output = jax.jvp(cost, (params,), (v,), has_aux=True)
            return (loss, output), jax.tree.map(lambda v: slope * v, v)

        (loss, output), estimates = jax.vmap(once, out_axes=(None, 0))(keys)
        return loss, output, jax.tree.map(lambda g: g.mean(0), estimates)

    def _on_activities(
        self, model: Chain, batch: Batch, keys: Key[Array, " draws"]
    ) -> tuple[Float[Array, ""], Float[Array, "batch ..."], PyTree]:
        def costs(noises: list[Array]) -> tuple[Array, tuple[Array, list[Array]]]:
            output, traces = perturb(model, noises).record(batch.x)
            return self.loss(output, batch.y), (output, [trace.input for trace in traces])

        def once(key: Array) -> tuple[tuple[Array, Array, list[Array]], list[Array]]:
            noises = draw(model, batch.x, key)
            clean = [jnp.zeros_like(xi) for xi in noises]
            costs_now, slopes, (output, inputs) = jax.jvp(costs, (clean,), (noises,), has_aux=True)
            errors = [jax.vmap(jnp.multiply)(slopes, xi) / len(slopes) for xi in noises]
            return (jnp.mean(costs_now), output, inputs), errors

        (loss, output, inputs), errors = jax.vmap(once, out_axes=(None, 0))(keys)
        updates = [
            local_update(site, h, error.mean(0)) for site, h, error in zip(sites(model), inputs, errors, strict=True)
        ]
        return loss, output, assemble(model, updates)
