"""Weight mirror: noise sent up through a layer teaches its feedback weights what the forward ones are.

    engaged:  delta_L = dC/da_L,   delta_l = f'(a_l) * (B_{l+1}^T delta_{l+1}),
              dW_l = outer(delta_l, h_{l-1})
    mirror:   x ~ noise * U[-1/2, 1/2],   y = f(W_l x + b_l),
              B_l <- B_l + eta_B (outer(y - f(b_l), x) - lambda sigma^2 B_l),   sigma^2 = noise^2 / 12

The outer product is a mean over the batch, and in a convolution over the pixels it is applied to. Its
expectation is sigma^2 f' W, because x is white. So B settles at f' W / lambda, without anybody having read W.

Two things differ from the published experiments. There y is not measured from its resting value f(b); the
mean is the same, because x has mean zero, but for a sigmoid nearly all of the variance is due to f(b). And
their normalisation of B is a local variable that is thrown away, so B only grows; here the decay works.

Source: Akrout, Wilson, Humphreys, Lillicrap and Tweed 2019.

Exact limit: in a linear network E[outer(y - b, x)] = sigma^2 W; with B = W the engaged mode is backprop.
"""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from ..._checks import choose, count, non_negative, positive
from ...contract import Batch, Card, Credit, DataInfo, Learner, Needs, Rule
from ...nets import INITIALISERS, Chain, Site, initialiser, local_update, sites
from .._traces import above_first, trace_shapes
from ._transport import draw_like, transported_gradient

_INITIAL_BATCH = 128
"""Noise examples in each mirror batch before training: the batch size of the published experiments."""


class WeightMirror(Rule):
    """Weight mirror: feedback weights that learn the forward ones from the network's answer to noise.

    Use it for backprop's accuracy without weight transport where forward and feedback weights must not share
    their increments (else see `KolenPollack`), and for feedback weights that are ready before training. Each
    training batch is followed by one mirror batch of the same size: a forward pass and an update of every
    layer but the first on top of what backprop costs.

    Per mirror batch B goes a fraction feedback_rate * noise^2 / 12 * decay of its way, about 1 / 120 with the
    defaults; the smaller the fraction, the more noise is averaged and the closer B comes to W. The published
    setting is `feedback_rate=1.28, noise=0.1, decay=0, centre=False, initial_batches=468`; its rate of 0.01
    multiplied a sum over 128 examples.

    Args:
        feedback_rate: eta_B, step of the feedback weights, above 0.
        noise: width of the uniform noise, in the units of the activities, above 0. Large noise saturates
            units; without `centre`, small noise drowns in f(b).
        decay: lambda, 0 or more. With 1, B settles at f' W; with 0 it grows without bound.
        centre: measure y from its resting value f(b).
        initial_batches: mirror batches of 128 examples before training, 0 or more.
        init_feedback: initialiser of the feedback weights, by name (see `nets.initialiser`).
        loss: the cost, by name or as a `Loss`.

    Raises:
        ValueError: a number is out of its range, or `init_feedback` is unknown.

    References:
        Akrout, Wilson, Humphreys, Lillicrap & Tweed. Deep learning without weight transport. NeurIPS, 2019.
    """

    feedback_rate: float = 0.1
    noise: float = 1.0
    decay: float = 1.0
    centre: bool = eqx.field(default=True, static=True)
    initial_batches: int = eqx.field(default=0, static=True)
    init_feedback: str = eqx.field(default="glorot-normal", static=True)

    card: ClassVar[Card] = Card(
        name="Weight mirror",
        family="feedback",
        needs=Needs.CHAIN,
        source=("akrout2019",),
        dossier=("S24",),
        local=True,
        weight_transport=False,
        phases=3,
        derivatives=True,
        limit="backprop when B = W, which it approaches up to f'",
    )

    def __check_init__(self):
        """Refuse numbers out of their range and an unknown initialiser."""
        positive("feedback_rate", self.feedback_rate)
        positive("noise", self.noise)
        non_negative("decay", self.decay)
        count("initial_batches", self.initial_batches, least=0)
        choose("init_feedback", self.init_feedback, INITIALISERS)

    def init(self, model: PyTree, *, data: DataInfo | None = None, key: Key[Array, ""]) -> Learner:
        """Draw one B for each weight above the first layer's, and mirror `initial_batches` times."""
        del data
        key_draw, key_mirror = jax.random.split(key)
        feedback = draw_like(self.accept(model), initialiser(self.init_feedback), key_draw)
        trace_shapes(model)  # refuses recurrence, where noise sent into a layer comes back as its input

        def mirror(feedback: list[Array], key: Array) -> tuple[list[Array], None]:
            return self.mirror(model, feedback, _INITIAL_BATCH, key=key), None

        if self.initial_batches:
            feedback, _ = jax.lax.scan(mirror, feedback, jax.random.split(key_mirror, self.initial_batches))
        return Learner(model, memory=feedback)

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return the update whose errors came down through B, and B after one mirror batch."""
        loss, output, update, _ = transported_gradient(self.loss, learner.model, learner.memory, batch)
        memory = self.mirror(learner.model, learner.memory, len(batch.x), key=key)
        return Credit(loss, output, (update, None), memory)

    def feedback_weights(self, learner: Learner) -> list[Float[Array, "..."]]:
        """Return B."""
        return learner.memory

    def mirror(self, model: Chain, feedback: list[Array], examples: int, *, key: Key[Array, ""]) -> list[Array]:
        """Return the feedback weights after one batch of noise has gone through every layer by itself.

        Args:
            model: the network whose weights are mirrored.
            feedback: one B for each of `nets.affines_above_first(model)`.
            examples: noise examples in the batch.
            key: the noise comes from it.
        """
        layers = [
            (site, trace.input.shape)
            for site, trace, hears in zip(sites(model), trace_shapes(model, examples), above_first(model), strict=True)
            if hears
        ]
        keys = jax.random.split(key, len(layers))
        forget = self.decay * self.noise**2 / 12
        return [
            B + self.feedback_rate * (self._echo(site, shape, k) - forget * B)
            for B, (site, shape), k in zip(feedback, layers, keys, strict=True)
        ]

    def _echo(self, site: Site, shape: tuple[int, ...], key: Key[Array, ""]) -> Float[Array, "..."]:
        """The mean of outer(y - f(b), x) over a batch of noise, shaped like the weight."""
        x = self.noise * jax.random.uniform(key, shape, site.weight.dtype, -0.5, 0.5)
        y = site(x)
        if self.centre:
            y -= site(jnp.zeros_like(x[:1]))
        places = y.size // y.shape[-1]  # examples, times pixels in a convolution
        return local_update(site, x, y / places)[0]
