"""Local difference reconstruction: feedback that learns the transposed Jacobian, so that targets are backprop's.

    t_{L-1} = h_{L-1} - eta dC/dh_{L-1},   t_{l-1} = h_{l-1} - g_l(h_l) + g_l(t_l),   g_l(h) = B_l rho_l(h)
    f_l learns ||f_l(h_{l-1}) - t_l||^2,   f_L learns C
    g_l learns (||g_l(h_l + n) - g_l(h_l)||^2 - 2 <e, g_l(f_l(h_{l-1} + e)) - g_l(h_l)>) / noise^2

rho_l is the nonlinearity of f_l; e and n ~ N(0, noise^2) lie on the layer's input and output. With F and G the
Jacobians of f_l and g_l, the last line is for a small noise, in the mean over e and n,

    ||G||^2 - 2 tr(G F) = ||G - F^T||^2 - ||F||^2,

so g_l learns no inverse but the transpose, by correlations of activities alone. It has one B_l for all examples,
and takes the slope of rho_l at h_l in the place of a_l: G = F^T is reached where both slopes are the same, as in
linear layers and those of leaky rectifiers; elsewhere G is the nearest on average.

Sources: Ernoult et al. 2022, whose code leaves 1 / noise^2 to the rate of the feedback.

Exact limit: with G = F^T and small eta, t_l - h_l = -eta dC/dh_l, and a hidden layer's update is 2 eta times
backprop's.
"""

from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ..._checks import count, positive
from ...contract import Card, Needs
from ...nets import Activate, Chain, Series, layers
from ._layerwise import Activity, distance, nonlinearity
from ._rule import LayerTargets


class LocalDifferenceReconstruction(LayerTargets):
    """Difference target propagation with feedback that is trained to carry backprop's targets.

    Use it where `DifferenceTargetPropagation` falls behind backprop, as on deep convolutional nets: its
    inverses carry targets like a Gauss-Newton step, these carry gradients. With the default `target_step` and
    `reduction`, feedback that has converged makes its updates backprop's own, up to the curvature of the
    layers over the displacement of a target.

    The optimizer moves the feedback, `learner.feedback`, beside the model. Its rate decides how well the
    feedback follows the layers: give it one of its own, larger than theirs, with
    `optax.partition({"model": ..., "feedback": ...}, ("model", "feedback"))`. The published method takes many
    steps of the feedback for one of the layers, each from one draw of noise; here one step is taken, from the
    mean over `noise_draws`, which costs as much, takes as many times the memory, and needs no second optimizer.

    Args:
        target_step: eta, how far the last hidden layer's target lies down the cost's gradient, above 0.
        noise: standard deviation of the Gaussian noise that probes the layers, in the units of the
            activities, above 0. Small against the curvature of the nonlinearities.
        noise_draws: number of independent draws of noise that the feedback learns from in one step.
        reduction: the cost that `target_step` multiplies the gradient of: the batch's `"mean"`, or `"sum"`,
            each example's own.
        init_inverse: initialiser of the feedback's weights, by name (see `nets.initialiser`).
        loss: the cost, by name or as a `Loss`.

    Raises:
        ValueError: a number is out of its range, or a name is unknown.

    References:
        Ernoult, Normandin, Moudgil, Spinney, Belilovsky, Rish, Richards & Bengio. Towards scaling difference
        target propagation by learning backprop targets. ICML, 2022.
    """

    target_step: float = 0.5
    noise: float = 0.1
    noise_draws: int = eqx.field(default=10, static=True)
    reduction: Literal["mean", "sum"] = eqx.field(default="sum", static=True)

    card: ClassVar[Card] = Card(
        name="Local difference reconstruction",
        family="targets",
        needs=Needs.CHAIN,
        source=("ernoult2022",),
        dossier=(),
        local=True,
        weight_transport=False,
        phases=2,
        derivatives=True,
        limit="backprop when the feedback's Jacobians are the layers' transposed, for small steps",
    )

    def __check_init__(self):
        """Refuse numbers out of their range."""
        positive("noise", self.noise)
        count("noise_draws", self.noise_draws)

    def draw_inverses(self, model: Chain, key: Key[Array, ""], *, linear: bool = True) -> list[Series]:
        """One fresh g_l, l = 2 ... L-1: the nonlinearity of f_l, then a linear map down."""
        maps = super().draw_inverses(model, key, linear=linear)
        between = layers(model)[1:-1]
        return [Series((Activate(nonlinearity(f)), *g.stages)) for f, g in zip(between, maps, strict=True)]

    def inverse_cost(
        self, inverses: list[Series], model: Chain, h: list[Activity], *, key: Key[Array, ""]
    ) -> Float[Array, ""]:
        """sum_l (||g_l(h_l + n) - g_l(h_l)||^2 - 2 <e, g_l(f_l(h_{l-1} + e)) - g_l(h_l)>) / noise^2, over draws."""

        def cost(key: Key[Array, ""]) -> Float[Array, ""]:
            total = jnp.zeros(())
            keys = jax.random.split(key, (len(inverses), 2))
            for g, f, below, above, k in zip(inverses, layers(model)[1:-1], h[1:-2], h[2:-1], keys, strict=True):
                e = self.noise * jax.random.normal(k[0], below.shape, below.dtype)
                n = self.noise * jax.random.normal(k[1], above.shape, above.dtype)
                back = g(above)
                correlation = jnp.sum(e * (g(f(below + e)) - back)) / len(below)
                total += distance(g(above + n), back) - 2 * correlation
            return total / self.noise**2

        return jnp.mean(jax.vmap(cost)(jax.random.split(key, self.noise_draws)))
