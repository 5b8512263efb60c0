"""The steps that target propagation is made of: activities, targets, layer costs, inverses.

Layers are those of `nets.layers`, numbered as the papers do: h_0 = x, h_l = f_l(h_{l-1}), and f_L is the
output layer. Every f_l below it is trained to bring h_{l-1} to a target t_l, every inverse g_l to bring h_l
back to h_{l-1}. All costs are sums over units and means over the batch, without a factor 1/2, as published.
"""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ...contract import Batch, Rule
from ...losses import Hinge, Loss
from ...nets import (
    HARD,
    Activate,
    Activation,
    Chain,
    Conv,
    Dense,
    Flatten,
    Initialiser,
    Reshape,
    Residual,
    Series,
    Site,
    Upsample,
    affines,
    has_hard_units,
    layers,
)

Activity = Float[Array, "batch ..."]


def refuse_hinge(loss: Loss) -> None:
    """Raise unless the error of `loss` is the prediction minus the target, as that of a -log p is in its logits."""
    if isinstance(loss, Hinge):
        raise ValueError(
            "loss=Hinge() is no -log p of a target, and its error not the prediction minus the target; pass "
            "loss='cross-entropy', 'squared-error' or 'binary-cross-entropy'"
        )


def ears(layer: Series) -> tuple[Activate, ...]:
    """The sign or step through which a layer hears the one below, if there is one."""
    return tuple(stage for stage in layer.stages if isinstance(stage, Activate) and stage.activation in HARD)


def refuse_hard_layers(rule: Rule, model: Chain) -> None:
    """Raise where a layer is itself a sign or a step: it is moved along its own derivative, which is zero.

    What it hears may be hard, for a target is no derivative.
    """
    for number, layer in enumerate(layers(model), start=1):
        own = itertools.dropwhile(lambda stage: not affines(stage), layer.stages)  # after how it listens
        if has_hard_units(list(own)):
            raise TypeError(
                f"{type(rule).__name__} needs continuous activity behind every sign, but layer {number} is hard "
                "itself: give it activation='tanh' and put Activate('sign') between it and the next hidden layer, or "
                "choose StraightThrough"
            )


def activities(model: Chain, x: Activity) -> list[Activity]:
    """Return h_0 = x, h_1, ..., h_L."""
    h = [x]
    for f in layers(model):
        h.append(f(h[-1]))
    return h


def activity_shapes(model: Chain) -> list[jax.ShapeDtypeStruct]:
    """Shapes and types of h_0, ..., h_L for a batch of one."""
    x = jax.ShapeDtypeStruct((1, *model.input_shape), affines(model)[0].weight.dtype)
    return jax.eval_shape(activities, model, x)


def distance(h: Activity, target: Activity) -> Float[Array, ""]:
    """||h - t||^2, summed over units, the mean over the batch."""
    return jnp.sum((h - target) ** 2) / len(h)


def layer_cost(model: Chain, h: Sequence[Activity], targets: Sequence[Activity]) -> Float[Array, ""]:
    """sum_l ||f_l(h_{l-1}) - t_l||^2 over the layers that have a target, from the first one on.

    The h are constants, so its gradient with respect to the model is each layer's own.
    """
    pairs = zip(layers(model), h, targets, strict=False)
    return sum((distance(f(below), target) for f, below, target in pairs), start=jnp.zeros(()))


def output_step(
    loss: Loss, model: Chain, below: Activity, batch: Batch, reduction: str
) -> tuple[Float[Array, ""], Activity, Activity]:
    """Return the mean cost, the output f_L(h_{L-1}), and dC/dh_{L-1}.

    Args:
        loss: the cost.
        model: the network.
        below: h_{L-1}.
        batch: the targets of the output.
        reduction: whether C is the batch's mean cost, `"mean"`, or each example's own, `"sum"`.
    """
    f = layers(model)[-1]

    def cost(below: Array) -> tuple[Array, tuple[Array, Array]]:
        output = f(below)
        costs = loss(output, batch.y)
        return costs.sum() if reduction == "sum" else costs.mean(), (costs.mean(), output)

    gradient, (mean, output) = jax.grad(cost, has_aux=True)(below)
    return mean, output, gradient


def nonlinearity(layer: Series) -> Activation:
    """The last nonlinearity of a layer: the range of its activity."""
    found = [s.activation for s in layer.stages if isinstance(s, Activate | Residual | Site)]
    return found[-1]


def inverse(
    forward: Series,
    below: jax.ShapeDtypeStruct,
    *,
    activation: str | Activation,
    init: str | Initialiser,
    bias: bool = True,
    key: Key[Array, ""],
) -> Series:
    """A layer g_l from the shape of h_l to that of h_{l-1}, to be trained to undo f_l.

    From image to image it is a convolution of the enlarged upper one, with f_l's own size of kernel; else it
    is dense.

    Args:
        forward: f_l.
        below: shape and type of h_{l-1}, a batch of one.
        activation: g_l's nonlinearity: that in whose range h_{l-1} lies.
        init: initialiser of its weight.
        bias: whether it has a bias.
        key: random key for the weight.
    """
    above = jax.eval_shape(forward, below)
    options = {"activation": activation, "init": init, "bias": bias, "key": key}
    if len(above.shape) == len(below.shape) == 4:
        _, height, width, channels = below.shape
        size = next(site.weight.shape[0] for site in affines(forward))
        size += 1 - size % 2  # an even kernel has no middle
        stages = [Upsample(height, width), Conv(above.shape[-1], channels, size, **options)]
    else:
        stages = [Flatten(), Dense(above.size, below.size, **options), Reshape(below.shape[1:])]
    return Series(tuple(stages))
