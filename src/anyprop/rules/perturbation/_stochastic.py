"""Stochastic units: the hidden layers of a chain read as samplers, and what their noise says about the cost.

    Bernoulli-logistic unit:   h = 1[u < p],         p = sigmoid(a),   e = d log p(h | a) / da = h - p
    Gaussian unit:             h = mu + sigma xi,    mu = f(a),        e = f'(a) (h - mu) / sigma^2

with u uniform on [0, 1) and xi standard normal. e is the unit's score (its characteristic eligibility). The
last layer draws nothing. No derivative passes through a sample, so each layer's cost gradient is estimated
by some scalar times e, while the layer after the last sample has an exact one.

The same chain called without this wiring passes means up instead of samples: the mean-field prediction.
"""

import abc
from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from ..._checks import choose, positive
from ...contract import Batch, Credit, Learner, Rule
from ...losses import Loss
from ...nets import Chain, Site, Trace, Wiring, assemble, local_update, sites, wire


class Sampler(Wiring):
    """A site that emits a sample around its mean f(a), and passes no derivative through it.

    Args:
        noise: the random numbers of the sample, one a unit, of the shape of the site's output.
    """

    noise: Float[Array, "batch ..."]

    def __call__(self, site: Site, h: Float[Array, "batch ..."]) -> tuple[Array, Array]:
        """Return a and a sample of h given a."""
        a = site.drive(h)
        return a, jax.lax.stop_gradient(self.emit(site.activation(a)))

    @abc.abstractmethod
    def emit(self, mean: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """Return the sample that this noise makes of a mean."""

    @abc.abstractmethod
    def score(self, site: Site, trace: Trace) -> Float[Array, "batch ..."]:
        """Return e = d log p(h | a) / da of what the site emitted."""


class Bernoulli(Sampler):
    """Bernoulli-logistic units, h = 1[u < sigmoid(a)]; the noise u is uniform on [0, 1)."""

    def emit(self, mean: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """Return 1[u < p]."""
        return (self.noise < mean).astype(mean.dtype)

    def score(self, site: Site, trace: Trace) -> Float[Array, "batch ..."]:
        """Return h - p."""
        return trace.output - site.activation(trace.drive)


class Gaussian(Sampler):
    """Gaussian units, h = f(a) + sigma xi; the noise xi is standard normal.

    Args:
        sigma: standard deviation of h given a, one for all units or one for each.
    """

    sigma: float | Float[Array, "..."]

    def emit(self, mean: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """Return mu + sigma xi."""
        return mean + self.sigma * self.noise

    def score(self, site: Site, trace: Trace) -> Float[Array, "batch ..."]:
        """Return f'(a) (h - mu) / sigma^2, where (h - mu) / sigma is the noise."""
        return through_activation(site, trace, self.noise / self.sigma)


class Sampled(NamedTuple):
    """One sampled pass: each example's cost, the output, the traces, and the exact part of the gradient."""

    costs: Float[Array, " batch"]
    output: Float[Array, "batch ..."]
    traces: tuple[Trace, ...]
    gradient: PyTree


class RunningMean(NamedTuple):
    """A running mean of the cost, weighted: the sums of weight times cost and of the weights alone."""

    cost: Float[Array, "..."]
    weight: Float[Array, "..."]

    @property
    def value(self) -> Float[Array, "..."]:
        """The mean, and zero before there is any."""
        return jnp.where(self.weight > 0, self.cost / jnp.where(self.weight > 0, self.weight, 1), 0)

    def after(self, decay: float, cost: Float[Array, "..."], weight: Float[Array, "..."]) -> "RunningMean":
        """The running mean after one more batch."""
        return RunningMean(
            decay * self.cost + (1 - decay) * jnp.mean(weight * cost, axis=0),
            decay * self.weight + (1 - decay) * jnp.mean(weight, axis=0),
        )


def through_activation(site: Site, trace: Trace, error: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
    """Turn an error at f(a) into one at a: f'(a) error."""
    return jax.vjp(site.activation, trace.drive)[1](error)[0]


def hidden_traces(model: Chain, x: PyTree) -> tuple[Trace, ...]:
    """Shapes and types of what the sites before the last one record on `x`, an array or a shape and type."""
    return jax.eval_shape(model.record, x)[1][:-1]


def example_of(model: Chain) -> jax.ShapeDtypeStruct:
    """Shape and type of a batch of one input."""
    return jax.ShapeDtypeStruct((1, *model.input_shape), jnp.float32)


def draw(
    model: Chain, x: Float[Array, "batch ..."], units: str, key: Key[Array, ""]
) -> list[Float[Array, "batch ..."]]:
    """Draw the noise of every hidden site: uniform for Bernoulli units, standard normal for Gaussian ones."""
    random = jax.random.uniform if units == "bernoulli" else jax.random.normal
    shapes = [trace.output for trace in hidden_traces(model, x)]
    keys = jax.random.split(key, max(len(shapes), 1))
    return [random(k, shape.shape, shape.dtype) for k, shape in zip(keys, shapes, strict=False)]


def sampled_pass(loss: Loss, model: Chain, samplers: Sequence[Sampler], batch: Batch) -> Sampled:
    """Run the batch through sampling hidden sites.

    Args:
        loss: the cost.
        model: the network.
        samplers: one for each site but the last.
        batch: examples.

    Returns:
        The pass; its gradient, of the mean cost, is zero at the sampling sites and exact at the last one.
    """

    def cost(wired: Chain) -> tuple[Array, tuple]:
        output, traces = wired.record(batch.x)
        costs = loss(output, batch.y)
        return jnp.mean(costs), (costs, output, traces)

    (_, (costs, output, traces)), gradient = eqx.filter_value_and_grad(cost, has_aux=True)(
        wire(model, [*samplers, None])
    )
    return Sampled(costs, output, traces, gradient)


def assemble_update(model: Chain, sampled: Sampled, errors: Sequence[Float[Array, "batch ..."]]) -> Chain:
    """Lay out the update of a sampled pass.

    Args:
        model: the network.
        sampled: the pass.
        errors: for each site but the last, the estimate of d(mean cost)/da, one row an example.

    Returns:
        The layer-local updates of the hidden sites and the exact gradient of the last one.
    """
    updates = [
        local_update(site, trace.input, error)
        for site, trace, error in zip(sites(model)[:-1], sampled.traces[:-1], errors, strict=True)
    ]
    last = sites(sampled.gradient)[-1]
    return assemble(model, [*updates, (last.weight, last.bias)])


def per_example(values: Float[Array, " batch"], like: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
    """Give one number an example the axes of `like`, so that it multiplies all units of its example."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def root_mean_square(arrays: Sequence[Float[Array, "..."]]) -> Float[Array, ""]:
    """The root mean square over all elements of each array, then over arrays; zero where there are none."""
    return jnp.sqrt(sum((jnp.mean(array**2) for array in arrays), start=jnp.zeros(())) / max(len(arrays), 1))


class StochasticRule(Rule):
    """A rule for chains whose hidden layers are stochastic units.

    Args:
        units: `"bernoulli"` for Bernoulli-logistic units, which every hidden layer with a sigmoid can be
            read as, or `"gaussian"` for any activation plus Gaussian noise.
        sigma: standard deviation of Gaussian units, in units of their activity; Bernoulli units have none.
        loss: the cost, by name or as a `Loss`.
    """

    units: Literal["bernoulli", "gaussian"] = eqx.field(default="bernoulli", static=True, kw_only=True)
    sigma: float = eqx.field(default=0.5, kw_only=True)

    UNITS: ClassVar[tuple[str, ...]] = ("bernoulli", "gaussian")

    def __check_init__(self):
        """Refuse unknown units and a sigma that is not positive."""
        choose("units", self.units, self.UNITS)
        positive("sigma", self.sigma)

    def accept(self, model: PyTree) -> PyTree:
        """Return `model` if all its hidden layers can be read as these units.

        Raises:
            TypeError: they cannot; the message says what to pass instead.
        """
        model = super().accept(model)
        hidden_traces(model, example_of(model))  # An Elman layer refuses to be recorded, and says what to pass.
        logistic = [site.activation is jax.nn.sigmoid for site in sites(model)[:-1]]
        if self.units == "bernoulli" and not all(logistic):
            name = type(self).__name__
            raise TypeError(
                f"{name} reads hidden layers as Bernoulli-logistic units, but hidden layer "
                f"{logistic.index(False) + 1} of {len(logistic)} has no sigmoid; build the chain with "
                f"activation='sigmoid', or pass {name}(units='gaussian'), which takes any activation"
            )
        return model

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return the estimate that one fresh sample of every unit makes.

        `loss` and `output` are those of the sampled pass; the learner's model itself predicts mean-field.
        """
        return self.estimate(learner, batch, draw(learner.model, batch.x, self.units, key))

    @abc.abstractmethod
    def estimate(self, learner: Learner, batch: Batch, noise: Sequence[Float[Array, "batch ..."]]) -> Credit:
        """Return the estimate that this noise makes: what `credit` does once it has drawn.

        Args:
            learner: as for `credit`.
            batch: examples to learn from.
            noise: one array for each hidden site, of the shape of its output, see `draw`.
        """

    def samplers(
        self, noise: Sequence[Float[Array, "batch ..."]], sigmas: Sequence[Float[Array, "..."]] | None = None
    ) -> list[Sampler]:
        """One sampler of this rule's units for each array of noise; `sigmas` are those of Gaussian layers."""
        if self.units == "bernoulli":
            return [Bernoulli(xi) for xi in noise]
        return [Gaussian(xi, sigma) for xi, sigma in zip(noise, sigmas or [self.sigma] * len(noise), strict=True)]
