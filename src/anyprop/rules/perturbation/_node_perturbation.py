"""Node perturbation: add noise to the units, and credit each with what the noise did to the cost.

    a~_l = map(h~_{l-1}, W_l, b_l) + xi_l,   h~_l = f(a~_l),   xi_l ~ N(0, sigma^2)
    delta_l = (C~ - C) / sigma^2 * xi_l,     dW_l = outer(delta_l, h~_{l-1})

C~ and C are the cost of one example with and without the noise: one scalar an example, which every unit
multiplies with its own noise. With the layers taken in turn each has a noisy pass, and a C~, of its own,
so what enters the layer is clean.

Sources: Fiete and Seung 2006; Werfel, Xie and Seung 2005 for how fast it learns.

Exact limit: E[dW] is the gradient of the cost averaged over the noise, so the gradient of C itself for a
linear layer with squared error, or as sigma -> 0. The variance grows with the number of units, not of
weights.
"""

from typing import ClassVar, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from ..._checks import choose, count, positive
from ...contract import Batch, Card, Credit, Learner, Needs, Rule
from ...nets import assemble, local_update, sites
from .._noise import draw, drives, perturb
from ._draws import mean_of_draws

Layers = Literal["together", "in-turn"]


class NodePerturbation(Rule):
    """Node perturbation: every unit correlates its own noise with the change of the cost.

    Use it to learn without any backward pass and without derivatives; binary activations are fine, with a
    `sigma` that makes units switch. With the layers together it costs two forward passes and the weight
    products, at most what backprop costs.

    Args:
        sigma: standard deviation of the noise on a pre-activation, in its units.
        layers: `"together"` perturbs all layers in one pass. `"in-turn"` takes a noisy pass for each,
            so that no layer's estimate contains the noise of another: lower variance, more passes.
        draws: how many independent noises to average over.
        loss: the cost, by name or as a `Loss`.

    Raises:
        ValueError: `sigma` is not above zero, `layers` is unknown, or `draws` is not a positive integer.

    References:
        Fiete & Seung. Gradient learning in spiking neural networks by dynamic perturbation of
        conductances. Physical Review Letters, 2006.
        Werfel, Xie & Seung. Learning curves for stochastic gradient descent in linear feedforward
        networks. Neural Computation, 2005.
    """

    sigma: float = 0.01
    layers: Layers = eqx.field(default="together", static=True)
    draws: int = eqx.field(default=1, static=True)

    card: ClassVar[Card] = Card(
        name="Node perturbation",
        family="perturbation",
        needs=Needs.CHAIN,
        source=("fiete2006", "werfel2005"),
        dossier=("S06",),
        local=True,
        weight_transport=False,
        phases=2,
        derivatives=False,
        limit="the gradient for a linear layer with squared error, in the mean over draws",
    )

    def __check_init__(self):
        """Refuse hyper-parameters that have no meaning."""
        positive("sigma", self.sigma)
        choose("layers", self.layers, get_args(Layers))
        count("draws", self.draws)

    def accept(self, model: PyTree) -> PyTree:
        """Return `model` if it is a chain in which every site acts once.

        Raises:
            TypeError: it is not; the message says what to pass instead.
        """
        super().accept(model)
        drives(model, jax.ShapeDtypeStruct((1, *model.input_shape), jnp.float32))
        return model

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return the layer-local updates whose error is the rise in cost times the noise."""
        model, own = learner.model, sites(learner.model)
        output = model(batch.x)
        cost = self.loss(output, batch.y)

        def trial(xi: list[Array]) -> tuple[Float[Array, " batch"], list[Array]]:
            noisy, traces = perturb(model, [self.sigma * noise for noise in xi]).record(batch.x)
            return self.loss(noisy, batch.y) - cost, [trace.input for trace in traces]

        def alone(l: int, xi: list[Array]) -> list[Array]:
            return [noise if k == l else jnp.zeros_like(noise) for k, noise in enumerate(xi)]

        def estimate(key: Key[Array, ""]) -> PyTree:
            xi = draw(model, batch.x, key)  # of unit variance, so the error divides by sigma only once
            if self.layers == "together":
                trials = [trial(xi)] * len(xi)
            else:
                trials = [trial(alone(l, xi)) for l in range(len(xi))]
            updates = []
            for l, (rise, inputs) in enumerate(trials):
                error = jax.vmap(jnp.multiply)(rise / (self.sigma * len(rise)), xi[l])
                updates.append(local_update(own[l], inputs[l], error))
            return assemble(model, updates)

        grads = mean_of_draws(estimate, self.draws, key)
        return Credit(jnp.mean(cost), output, (grads, None), learner.memory)
