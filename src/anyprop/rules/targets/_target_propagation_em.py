"""Target propagation as variational EM: an auto-encoder that infers its hidden activities, then learns them.

    infer    h_0 = x,   h_l = f_l(h_{l-1}),   then N times, for l = L ... 1:
        h_l += delta [ f_l(h_{l-1}) - f_l(g_l(h_l)) ] + alpha [ g_{l+1}(h_{l+1}) - h_l ],   no alpha term at the top
    learn    the delta rule, on inputs with noise:  f_l(h_{l-1}) -> h_l,   g_l(h_l) -> h_{l-1}

The first bracket is d log p(h_{l-1}|h_l) / dh_l by target propagation, the second is d log p(h_l|h_{l+1}) / dh_l.
So inference climbs, and learning climbs again,

    log p(x, h) = log p(x|h_1) + sum_l log p(h_l|h_{l+1})

with unit Gaussians around the g_l, the loss for -log p(x|h_1), and a flat prior on the top.

    generate h_L ~ N(mean, 4 var) of the data's own h_L,   x = g_1(...g_L(h_L)),
             then 3 times:  infer h from x with alpha = 0.3,   x = g_1(h_1)

Source: Bengio, Lee, Bornschein, Mesnard and Lin 2015.

Exact limit: in a linear chain of two hidden layers with g_l = f_l^T the inferred h are the MAP estimate, for
Gaussians of variance 1 around g_1 and delta / alpha around g_2.
"""

import dataclasses
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, PyTree

from ..._checks import count, non_negative, positive
from ...contract import Batch, Card, Credit, Learner, Needs, Rule
from ...losses import Loss, SquaredError, as_loss
from ...nets import Chain, layers
from .._traces import trace_shapes
from ._layerwise import Activity, activities, refuse_hard_layers, refuse_hinge
from ._two_way import Way, corrupt, delta_rule, ends, from_below, log_normal, settle


class TopPrior(NamedTuple):
    """A Gaussian over the top activity, with independent units.

    Args:
        mean: of each unit.
        sd: standard deviation of each unit.
    """

    mean: Float[Array, "..."]
    sd: Float[Array, "..."]


class TargetPropagationEM(Rule):
    """Target propagation as EM: a generative model learned without backpropagating through more than one layer.

    Use it to learn images, or anything else, without labels: to draw new ones (`generate`) and to fill in
    missing parts (`inpaint`). The network is an auto-encoder, whose first half are the ways up, f_1 ... f_L, and
    second half the ways down, g_L ... g_1. The targets are the inputs:

        images = ap.data.load("mnist", reconstruct=True)
        net = ap.nets.mlp(784, 1000, 100, 1000, 784, activation="softplus", key=key)
        run = ap.fit(ap.TargetPropagationEM(), net, images)

    `Credit.metrics` has the log-likelihood log p(x, h) along the inference, less the Gaussians' constants:
    `"joint"`, `iterations` + 1 values; `"joint_first"` and `"joint_last"`. A step costs about `iterations`
    times backprop's.

    Args:
        iterations: N, how often the activities move, at least 1.
        rate: delta, how far they move to explain the layer below, above 0.
        prior_rate: alpha, how far they move toward what the layer above expects, 0 or more. At alpha = delta
            all densities count alike, and what is inferred is the MAP estimate. The published 0.001 hardly
            counts the upper ones: h_1 may then grow without bound, and log p(x, h) falls as log p(x|h_1) rises.
        noise: standard deviation of the Gaussian noise on what both halves learn from, in the units of the
            activities, 0 or more.
        loss: the cost, -log p(x|h_1), by name or as a `Loss`; not the hinge, which is no -log p. Default: half
            the squared error, a Gaussian.

    Raises:
        ValueError: a number is out of its range, a name is unknown, or the loss is the hinge.

    References:
        Bengio, Lee, Bornschein, Mesnard & Lin. Towards biologically plausible deep learning.
        arXiv:1502.04156, 2015.
    """

    iterations: int = eqx.field(default=15, static=True)
    rate: float = 0.1
    prior_rate: float = 0.1
    noise: float = 0.1
    loss: Loss = eqx.field(default_factory=SquaredError, converter=as_loss, kw_only=True)

    card: ClassVar[Card] = Card(
        name="Target propagation as variational EM",
        family="targets",
        needs=Needs.CHAIN,
        source=("bengio2015",),
        dossier=("S31",),
        local=True,
        weight_transport=False,
        phases=1,
        derivatives=True,
        limit="MAP inference in a linear chain whose second half is the transpose of its first",
    )

    def __check_init__(self):
        """Refuse numbers out of their range, and the hinge."""
        count("iterations", self.iterations)
        positive("rate", self.rate)
        non_negative("prior_rate", self.prior_rate)
        non_negative("noise", self.noise)
        refuse_hinge(self.loss)

    def accept(self, model: PyTree) -> PyTree:
        """Return `model` if its second half leads back through the shapes of its first.

        Raises:
            TypeError: it is not a chain, has a recurrent layer, a layer that is itself a sign or a step, or is no
                auto-encoder of this kind; the message says what to pass instead.
        """
        model = super().accept(model)
        x = jax.ShapeDtypeStruct((1, *model.input_shape), trace_shapes(model)[0].input.dtype)
        shapes = [h.shape[1:] for h in jax.eval_shape(activities, model, x)]
        if len(shapes) % 2 == 0 or shapes != shapes[::-1]:
            raise TypeError(
                f"TargetPropagationEM needs an auto-encoder that goes back through its own sizes, but the layers of "
                f"model have the shapes {shapes}; pass one such as ap.nets.mlp(784, 1000, 100, 1000, 784, key=key)"
            )
        refuse_hard_layers(self, model)
        return model

    def ways(self, model: Chain) -> tuple[list[Way], list[Way]]:
        """The two halves, f_1 ... f_L and g_1 ... g_L."""
        stages = layers(model)
        half = len(stages) // 2
        *down, last = stages[half:]
        return list(stages[:half]), [lambda h: self.loss.expected(last(h)), *reversed(down)]

    def infer(
        self, model: Chain, x: Activity, *, visible: Bool[Array, "batch ..."] | None = None
    ) -> tuple[list[Activity], Float[Array, " states"]]:
        """Infer the hidden activities.

        Args:
            model: the auto-encoder.
            x: inputs.
            visible: which parts of them to believe, in the shape of `x`; the others start from what is in `x`
                and follow their own reconstruction. Default: all.

        Returns:
            h_1 ... h_L, and the batch's mean of log p(x, h) at the start and after each iteration; of an x with
            hidden parts, with these as reconstructed.
        """
        f, g = self.ways(model)
        last = layers(model)[-1]

        def completed(h: list[Activity]) -> Activity:
            return x if visible is None else jnp.where(visible, x, g[0](h[0]))

        def step(h: list[Activity]) -> list[Activity]:
            below = [completed(h), *h]
            h = list(h)
            for i in reversed(range(len(h))):
                upper = g[i + 1](h[i + 1]) - h[i] if i + 1 < len(h) else 0.0
                h[i] += self.rate * from_below(f[i], g[i], below[i], h[i]) + self.prior_rate * upper
            return h

        def joint(h: list[Activity]) -> Float[Array, " batch"]:
            above = sum(log_normal(h[i - 1], g[i](h[i])) for i in range(1, len(h)))
            return above - self.loss(last(h[0]), completed(h))

        return settle(step, joint, activities(model, x)[1 : len(f) + 1], self.iterations)

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Infer, and return the delta rule of both halves.

        Raises:
            ValueError: the targets are not shaped like the inputs.
        """
        if batch.y.shape != batch.x.shape:
            raise ValueError(
                f"y must be the inputs again, of shape {batch.x.shape}, not {batch.y.shape}; pass Batch(x, x), or "
                "train on ap.data.load(..., reconstruct=True)"
            )
        output = learner.model(batch.x)
        h, trace = self.infer(learner.model, batch.x)
        noisy = corrupt([batch.x, *h], self.noise, key)

        def cost(model: Chain) -> Array:
            f, g = self.ways(model)
            reconstruction = jnp.mean(self.loss(layers(model)[-1](noisy[1]), batch.y))
            return delta_rule(f, noisy[:-1], h) + delta_rule(g[1:], noisy[2:], h[:-1]) + reconstruction

        grads = (eqx.filter_grad(cost)(learner.model), None)
        return Credit(jnp.mean(self.loss(output, batch.y)), output, grads, learner.memory, ends(trace))

    def top_prior(self, model: Chain, x: Activity, *, widening: float = 4.0) -> TopPrior:
        """Fit a Gaussian to the top activity that is inferred from data.

        Args:
            model: the auto-encoder.
            x: inputs, such as the training images.
            widening: factor on the variances, above 0; at 1 the samples look too much alike.
        """
        positive("widening", widening)
        top = self.infer(model, x)[0][-1]
        return TopPrior(top.mean(0), jnp.sqrt(widening * top.var(0)))

    def generate(
        self,
        model: Chain,
        prior: TopPrior,
        *,
        examples: int,
        rounds: int = 3,
        prior_rate: float = 0.3,
        key: Key[Array, ""],
    ) -> Activity:
        """Draw new examples.

        Args:
            model: the auto-encoder.
            prior: where to draw the top activity from, as `top_prior` fits it.
            examples: how many to draw, at least 1.
            rounds: how often to infer the hidden activities again and reconstruct from the first, 0 or more;
                0 goes straight down, through the means of the directed model.
            prior_rate: alpha in these inferences, 0 or more.
            key: random key.

        Raises:
            ValueError: a number is out of its range.
        """
        count("examples", examples)
        count("rounds", rounds, least=0)
        regeneration = dataclasses.replace(self, prior_rate=prior_rate)
        g = self.ways(model)[1]
        h = prior.mean + prior.sd * jax.random.normal(key, (examples, *prior.mean.shape), prior.mean.dtype)
        for way in reversed(g):
            h = way(h)

        def again(x: Activity, _: None) -> tuple[Activity, None]:
            return g[0](regeneration.infer(model, x)[0][0]), None

        return jax.lax.scan(again, h, length=rounds)[0]

    def inpaint(
        self, model: Chain, x: Activity, visible: Bool[Array, "batch ..."], *, iterations: int = 20
    ) -> Activity:
        """Fill in what is missing.

        Args:
            model: the auto-encoder.
            x: inputs; their missing parts are not looked at.
            visible: which parts are there, in the shape of `x`.
            iterations: how often the activities move, at least 1.

        Returns:
            Inputs with their visible parts as they were, and the others reconstructed.
        """
        x = jnp.where(visible, x, 0.0)
        h, _ = dataclasses.replace(self, iterations=iterations).infer(model, x, visible=visible)
        return jnp.where(visible, x, self.ways(model)[1][0](h[0]))
