"""Simplified target propagation: targets from the label down, with no gradient even at the top.

    o = softmax(a_L)   (what the output stands for under the loss),   z = f(W_z h_{L-1}) with W_z fixed
    t_{L-1} = h_{L-1} - g_L(o, z) + g_L(label, z),   t_{l-1} = h_{l-1} - g_l(h_l) + g_l(t_l)
    f_l learns ||f_l(h_{l-1}) - t_l||^2,   f_L learns C by the delta rule
    g_l learns ||g_l(f_l(h_{l-1} + e)) - h_{l-1}||^2,   e ~ N(0, noise^2);   f_L is (o, z) here

The auxiliary outputs z have their own value for a target. So they learn nothing, and tell the last inverse
which of all h_{L-1} with this label to go back to.

Source: Bartunov et al. 2018 (SDTP, and with auxiliary outputs AO-SDTP).

Exact limit: a linear g_L(o, z) = o W_L^T makes t_{L-1} that of difference target propagation with eta = 1 and
each example's own cost.
"""

from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from ..._checks import count
from ...contract import Batch, Card, Credit, DataInfo, Learner, Needs
from ...losses import Loss
from ...nets import Chain, Dense, Flatten, Series, Stage, layers
from ._layerwise import Activity, activities, activity_shapes, distance, inverse, nonlinearity, refuse_hinge
from ._rule import LayerTargets


class SimplifiedTargetPropagation(LayerTargets):
    """Difference target propagation without the one gradient it takes, from the cost to the last hidden layer.

    Use it to see what target propagation can do with no transport of weights at all. The label's few bits
    make poor targets where classes are few: it falls behind `DifferenceTargetPropagation`, the further the
    larger the task, and auxiliary outputs make up for a part of it.

    The optimizer moves the inverses, `learner.feedback`, beside the model. W_z, if any, lies in the memory: no
    optimizer moves it. Published with Adam, on 784-5x256-10 tanh at rate 4e-4 for the layers and 1.1e-3 for the
    inverses, trained at once, or in turns of an epoch each (`training.in_turns`), which did better:

        optax.partition({"model": optax.adam(4e-4), "inverses": optax.adam(1.1e-3)}, ("model", "inverses"))

    Args:
        auxiliary_units: number of the auxiliary outputs z, 0 or more; enough of them to tell examples of one
            class apart. They have the nonlinearity of the last hidden layer.
        target_step: how far the output's target lies on the way from the prediction to the label, above 0;
            1, as published, is the label itself.
        noise: standard deviation of the Gaussian noise that the inverses learn to take out, in the units of
            the activities, 0 or more.
        reduction: `"sum"`, `target_step` of the way in each example; or `"mean"`, `target_step` / batch size
            of it, for comparison with rules that have this convention.
        init_inverse: initialiser of the inverses' weights and of W_z, by name (see `nets.initialiser`).
        loss: the cost, by name or as a `Loss`, whose error is the prediction minus the target, as that of all
            of anyprop's losses but the hinge is.

    Raises:
        ValueError: a number is out of its range, a name is unknown, or the loss is the hinge.

    References:
        Bartunov, Santoro, Richards, Marris, Hinton & Lillicrap. Assessing the scalability of biologically-motivated
        deep learning algorithms and architectures. NeurIPS, 2018.
    """

    auxiliary_units: int = eqx.field(default=0, static=True)
    target_step: float = 1.0
    noise: float = 0.214
    reduction: Literal["mean", "sum"] = eqx.field(default="sum", static=True)
    init_inverse: str = eqx.field(default="glorot-uniform", static=True)

    DESCENDS: ClassVar[bool] = False

    card: ClassVar[Card] = Card(
        name="Simplified difference target propagation",
        family="targets",
        needs=Needs.CHAIN,
        source=("bartunov2018", "lee2015"),
        dossier=("S30",),
        local=True,
        weight_transport=False,
        phases=2,
        derivatives=True,
        limit="difference target propagation when the last inverse is the output layer's transpose",
    )

    def __check_init__(self):
        """Refuse a negative number of auxiliary outputs, and the hinge."""
        count("auxiliary_units", self.auxiliary_units, least=0)
        refuse_hinge(self.loss)

    def init(self, model: PyTree, *, data: DataInfo | None = None, key: Key[Array, ""]) -> Learner:
        """Draw W_z, and an inverse g_l for each layer above the first."""
        del data
        key_between, key_top, key_auxiliary = jax.random.split(key, 3)
        inverses = self.draw_inverses(self.accept(model), key_between)
        *hidden, _ = layers(model)
        if not hidden:
            return Learner(model, inverses)
        below, f = activity_shapes(model)[-2], nonlinearity(hidden[-1])
        auxiliary = None
        if self.auxiliary_units:
            z = Dense(below.size, self.auxiliary_units, activation=f, init=self.init_inverse, key=key_auxiliary)
            auxiliary = Series((Flatten(), z))
        top = layers(self.answering(model, auxiliary))[-1]
        inverses.append(inverse(top, below, activation=f, init=self.init_inverse, key=key_top))
        return Learner(model, inverses, auxiliary)

    def answering(self, model: Chain, auxiliary: Series | None) -> Chain:
        """The network as the inverses know it, with (o, z) for its output."""
        *hidden, top = layers(model)
        return Chain([*hidden, Answer(top, auxiliary, self.loss)], input_shape=model.input_shape)

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return each layer's own gradient, and each inverse's; `inverse_loss` says how well they invert."""
        model, inverses, auxiliary = learner.model, learner.feedback, learner.memory
        h, loss, output, targets = self.propose(learner, batch)
        update = eqx.filter_grad(self.forward_cost)(model, h, targets, batch)
        answering = self.answering(model, auxiliary)
        inverting, inverse_update = eqx.filter_value_and_grad(self.inverse_cost)(inverses, answering, h, key=key)
        return Credit(loss, output, (update, inverse_update), auxiliary, {"inverse_loss": inverting})

    def propose(
        self, learner: Learner, batch: Batch
    ) -> tuple[list[Activity], Float[Array, ""], Activity, list[Activity]]:
        """Return h_0 ... h_{L-1} and (o, z), the mean cost, the output, and the targets t_1 ... t_{L-1}."""
        h = activities(self.answering(learner.model, learner.memory), batch.x)
        output = layers(learner.model)[-1](h[-2])
        error = self.loss.error(output, batch.y).reshape(len(output), -1)  # o - label; z lies where it should
        error = jnp.pad(error, ((0, 0), (0, h[-1].shape[1] - error.shape[1])))
        *targets, _ = self.targets(learner.feedback, h[1:], error if self.reduction == "sum" else error / len(error))
        return h, jnp.mean(self.loss(output, batch.y)), output, targets

    def inverse_cost(
        self, inverses: list[Series], model: Chain, h: list[Activity], *, key: Key[Array, ""]
    ) -> Float[Array, ""]:
        """sum_l ||g_l(f_l(h_{l-1} + noise)) - h_{l-1}||^2, f_l(..) held constant, for all layers above the first."""
        cost = jnp.zeros(())
        keys = jax.random.split(key, max(len(inverses), 1))
        for g, f, below, k in zip(inverses, layers(model)[1:], h[1:-1], keys, strict=False):
            noisy = below + self.noise * jax.random.normal(k, below.shape, below.dtype)
            cost += distance(g(f(noisy)), below)
        return cost


class Answer(Stage):
    """The output layer as its inverse hears it: what the output stands for, and auxiliary outputs beside it.

    Args:
        layer: f_L.
        auxiliary: h_{L-1} -> z, or None for no auxiliary outputs.
        loss: the cost, which says what the output stands for.
    """

    layer: Series
    auxiliary: Series | None
    loss: Loss

    def __call__(self, h: Float[Array, "batch ..."]) -> Float[Array, "batch units"]:
        """Return (o, z), one axis an example."""
        o = self.loss.expected(self.layer(h)).reshape(len(h), -1)
        return o if self.auxiliary is None else jnp.concatenate([o, self.auxiliary(h)], axis=1)
