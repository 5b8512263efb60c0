"""What all rules share that send a target from layer to layer, from the top down to the first.

    t_{L-1} = h_{L-1} - target_step dC/dh_{L-1}
    t_{l-1} = h_{l-1} - g_l(h_l) + g_l(t_l),   l = L-1 ... 2

    f_l learns ||f_l(h_{l-1}) - t_l||^2,   f_L learns C,   g_l learns a cost of its own.

A rule of this kind says how the inverses learn, and may send targets down in another way.
"""

from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from ..._checks import choose, non_negative, positive
from ...contract import Batch, Credit, DataInfo, Learner, Rule
from ...nets import INITIALISERS, Activation, Chain, Series, layers
from .._traces import trace_shapes
from ._layerwise import (
    Activity,
    activities,
    activity_shapes,
    distance,
    ears,
    inverse,
    layer_cost,
    nonlinearity,
    output_step,
    refuse_hard_layers,
)


class LayerTargets(Rule):
    """A rule that trains each layer on a target, sent down through learned inverses."""

    target_step: float = 0.3277
    noise: float = 0.36
    reduction: Literal["mean", "sum"] = eqx.field(default="mean", static=True)
    init_inverse: str = eqx.field(default="orthogonal", static=True)

    DESCENDS: ClassVar[bool] = True
    """Whether the last hidden layer's target is a step down the cost, along dC/dh_{L-1}."""

    def __check_init__(self):
        """Refuse numbers out of their range and unknown names."""
        positive("target_step", self.target_step)
        non_negative("noise", self.noise)
        choose("reduction", self.reduction, ("mean", "sum"))
        choose("init_inverse", self.init_inverse, INITIALISERS)

    def accept(self, model: PyTree) -> PyTree:
        """Return `model` if its layers have one activity each, to which a target can be given.

        Raises:
            TypeError: it is not a chain, has a recurrent layer, a layer that is itself a sign or a step, or an
                output layer that hears through one; the message says what to pass instead.
        """
        model = super().accept(model)
        trace_shapes(model)
        refuse_hard_layers(self, model)
        if self.DESCENDS and ears(layers(model)[-1]):
            raise TypeError(
                f"{type(self).__name__} takes the cost's gradient at the last hidden layer, which the output layer "
                "here hears through a sign or step only: leave out the last Activate, or choose StraightThrough"
            )
        return model

    def init(self, model: PyTree, *, data: DataInfo | None = None, key: Key[Array, ""]) -> Learner:
        """Draw one inverse g_l for each layer between the first and the last."""
        del data
        return Learner(self.accept(model), feedback=self.draw_inverses(model, key))

    def draw_inverses(self, model: Chain, key: Key[Array, ""], *, linear: bool = False) -> list[Series]:
        """One fresh g_l, l = 2 ... L-1: with the nonlinearity of the layer that it leads back to, or linear."""
        forward = layers(model)
        h = activity_shapes(model)
        between = range(1, len(forward) - 1)
        return [
            inverse(
                forward[i],
                h[i],
                activation="identity" if linear else self.range_of(forward[i - 1]),
                init=self.init_inverse,
                bias=not linear,
                key=k,
            )
            for i, k in zip(between, jax.random.split(key, max(len(between), 1)), strict=False)
        ]

    def range_of(self, layer: Series) -> Activation:
        """The nonlinearity of the inverse that leads back to the activity of `layer`: that layer's own."""
        return nonlinearity(layer)

    def inverses_of(self, learner: Learner) -> list[Series]:
        """The inverses g_2 ... g_{L-1} of a learner: what the optimizer moves beside the model."""
        return learner.feedback

    def down(self, g: Series, above: Activity, target: Activity, below: Activity) -> Activity:
        """Return t_{l-1} = h_{l-1} - g_l(h_l) + g_l(t_l)."""
        return below - g(above) + g(target)

    def targets(self, inverses: list[Series], hidden: list[Activity], gradient: Activity) -> list[Activity]:
        """Return a target for each of some activities, such as t_1 ... t_{L-1}.

        Args:
            inverses: one between each two of the activities, such as g_2 ... g_{L-1}.
            hidden: the activities from the first one up, such as h_1 ... h_{L-1}.
            gradient: of the cost with respect to the last of them.
        """
        if not hidden:
            return []
        targets = [hidden[-1] - self.target_step * gradient]
        for g, above, below in zip(reversed(inverses), reversed(hidden[1:]), reversed(hidden[:-1]), strict=True):
            targets.insert(0, self.down(g, above, targets[0], below))
        return targets

    def inverse_cost(
        self, inverses: list[Series], model: Chain, h: list[Activity], *, key: Key[Array, ""]
    ) -> Float[Array, ""]:
        """sum_l ||g_l(f_l(z)) - z||^2 with z = h_{l-1} + noise, f_l(z) held constant."""
        cost = jnp.zeros(())
        keys = jax.random.split(key, len(inverses))
        for g, f, below, k in zip(inverses, layers(model)[1:-1], h[1:-2], keys, strict=True):
            z = below + self.noise * jax.random.normal(k, below.shape, below.dtype)
            cost += distance(g(f(z)), z)
        return cost

    def propose(
        self, learner: Learner, batch: Batch
    ) -> tuple[list[Activity], Float[Array, ""], Activity, list[Activity]]:
        """Return h_0 ... h_L, the mean cost, the output, and the targets t_1 ... t_{L-1}."""
        h = activities(learner.model, batch.x)
        loss, output, gradient = output_step(self.loss, learner.model, h[-2], batch, self.reduction)
        return h, loss, output, self.targets(self.inverses_of(learner), h[1:-1], gradient)

    def forward_cost(self, model: Chain, h: list[Activity], targets: list[Activity], batch: Batch) -> Float[Array, ""]:
        """sum_l ||f_l(h_{l-1}) - t_l||^2 + C, whose gradient with respect to the model is each layer's own."""
        return layer_cost(model, h, targets) + jnp.mean(self.loss(layers(model)[-1](h[-2]), batch.y))

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return each layer's own gradient, and each inverse's; `inverse_loss` says how well they invert."""
        h, loss, output, targets = self.propose(learner, batch)

        def inverse_cost(inverses: list[Series]) -> Array:
            return self.inverse_cost(inverses, learner.model, h, key=key)

        update = eqx.filter_grad(self.forward_cost)(learner.model, h, targets, batch)
        inverting, inverse_update = eqx.filter_value_and_grad(inverse_cost)(learner.feedback)
        return Credit(loss, output, (update, inverse_update), learner.memory, {"inverse_loss": inverting})
