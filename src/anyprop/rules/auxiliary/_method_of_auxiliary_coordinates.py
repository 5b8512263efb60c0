"""The method of auxiliary coordinates: a deep net as shallow ones, joined by a code for each example.

With f_1 .. f_{K+1} the layers, z_k the codes, z_0 = x, and E(n) the cost of example n:

    E(n) = C(f_{K+1}(z_K), y) + mu/2 sum_{k<=K} ||z_k - f_k(z_{k-1})||^2

    Z-step:  z(n) <- one Gauss-Newton step on E(n), for each example by itself
    W-step:  one regression for each layer, min_W mean_n E(n) with the codes constant: its gradient,
             or W - (W after one Gauss-Newton step on it)
    mu at step t  =  mu_0 growth^(t / mu_every)

As mu grows the codes are forced to be what the net computes, and the problem becomes the nested one,
min_W mean_n C(f_{K+1}(.. f_1(x)), y).

Source: Carreira-Perpinan and Wang 2014.

Exact limit: where the codes minimise E, the gradient of the W-step is that of min_z E, and it tends to
backprop as mu grows.
"""

from collections.abc import Callable
from typing import ClassVar, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from ..._checks import choose, count, positive
from ...contract import Batch, Card, Credit, DataInfo, Learner, Needs, Rule
from ...losses import Hinge, Loss
from ...nets import Chain, has_hard_units, layers
from .._rows import count_examples, put_rows, row_index, take_rows
from ._blocks import gauss_newton, one_example

Codes = tuple[Float[Array, "batch ..."], ...]
Regression = Literal["gradient", "gauss-newton"]


class Coordinates(eqx.Module):
    """What is kept for every training example, one row each.

    Args:
        codes: z_1 .. z_K.
        fresh: whether the example has not been seen; its codes are then what the net computes.
    """

    codes: tuple[Float[Array, "examples ..."], ...]
    fresh: Bool[Array, " examples"]


class Memory(eqx.Module):
    """The coordinates of all examples, and the number of steps so far.

    Args:
        coordinates: one row an example.
        step: t, which sets mu.
    """

    coordinates: Coordinates
    step: Int[Array, ""]


class MethodOfAuxiliaryCoordinates(Rule):
    """MAC: codes for each example between the layers, by Gauss-Newton, and a regression for each layer.

    Use it with any chain of differentiable layers: it is the way to train layers independently of each other.
    Codes persist from one visit of an example to the next, so it needs `data`. Take the whole training set as
    one batch, as published: weights that move for other examples leave the codes of an example behind, and
    they may never catch up. A visit costs about 2 `iterations` forward passes, and with Gauss-Newton steps on
    the weights twice as many. When training is over, `finish` fits the last layer to what the net itself
    computes.

    It reports `mu`, `objective`, the mean of E before and `solved` after the Z-step, and `violation`,
    the mean of sum_k ||z_k - f_k(z_{k-1})||^2 after it.

    Args:
        mu: mu_0, the penalty's weight at the first step.
        growth: factor by which mu grows in `mu_every` steps; above 1. It stops growing where rounding would
            hide the cost behind the penalty, at 0.01 / (the precision of the codes).
        mu_every: steps in which mu grows by `growth`.
        iterations: iterations of conjugate gradients in a Gauss-Newton step. As many as an example has codes
            solve it exactly, but far fewer do.
        regression: what a W-step returns: `"gradient"`, for any optimizer, or `"gauss-newton"`, the old weights
            less those after one Gauss-Newton step on every layer's regression, as published; apply that with
            `optax.sgd(1.0)`.
        loss: the cost C, by name or as a `Loss`; convex in the output. Neither `finish` nor the Gauss-Newton
            regression takes the hinge, which has no curvature.

    Raises:
        ValueError: `mu` is not positive, `growth` not above 1, a number of steps below 1, `regression` unknown,
            or the loss of a Gauss-Newton regression is the hinge.

    References:
        Carreira-Perpinan & Wang. Distributed optimization of deeply nested systems. AISTATS, 2014.
    """

    mu: float = 1.0
    growth: float = 10.0
    mu_every: int = eqx.field(default=1000, static=True)
    iterations: int = eqx.field(default=10, static=True)
    regression: Regression = eqx.field(default="gradient", static=True)

    card: ClassVar[Card] = Card(
        name="Method of auxiliary coordinates",
        family="auxiliary",
        needs=Needs.CHAIN,
        source=("carreira2014",),
        dossier=("S45",),
        local=True,
        weight_transport=True,
        phases=2,
        derivatives=True,
        limit="backprop where the codes are at their minimum and mu grows",
    )

    def __check_init__(self):
        """Refuse a penalty that does not grow."""
        positive("mu", self.mu)
        positive("growth", self.growth)
        if self.growth <= 1:
            raise ValueError(f"growth must be above 1, so that mu grows, not {self.growth!r}")
        count("mu_every", self.mu_every)
        count("iterations", self.iterations)
        choose("regression", self.regression, get_args(Regression))
        if self.regression == "gauss-newton" and isinstance(self.loss, Hinge):
            raise ValueError(
                "loss=Hinge() has no curvature for a Gauss-Newton step on the last layer; pass regression='gradient', "
                "or loss='squared-error'"
            )

    @property
    def whole_step(self) -> bool:
        """Whether the W-step is taken as a whole: by Gauss-Newton it is."""
        return self.regression == "gauss-newton"

    def accept(self, model: PyTree) -> Chain:
        """Return `model` if every layer has a derivative for the codes below it to follow.

        Raises:
            TypeError: it is no chain, or has a sign or a step; the message says what to pass instead.
        """
        model = super().accept(model)
        if has_hard_units(model):
            raise TypeError(
                f"{type(self).__name__} cannot pass an error through a sign or a step, whose derivative is zero; pass "
                "activation='tanh' or 'relu', or choose AlternatingMinimization, which gives them a slope"
            )
        return model

    def init(self, model: PyTree, *, data: DataInfo | None = None, key: Key[Array, ""]) -> Learner:
        """Make room for the codes of every training example.

        Raises:
            TypeError: the model is no chain, or has a sign or a step.
            ValueError: `data` is missing.
        """
        del key
        model = self.accept(model)
        examples = count_examples(type(self).__name__, data)
        shapes = jax.eval_shape(lambda x: forward(model, x), one_example(model))
        codes = tuple(jnp.zeros((examples, *z.shape[1:]), z.dtype) for z in shapes)
        return Learner(model, memory=Memory(Coordinates(codes, jnp.full(examples, True)), jnp.asarray(0)))

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return the W-step, after a Z-step on the codes of the batch."""
        del key
        index, model, memory = row_index(type(self).__name__, batch), learner.model, learner.memory
        rows = take_rows(memory.coordinates, index)
        output = model(batch.x)
        mu = self.penalty(memory.step, output.dtype)
        codes = tuple(
            jnp.where(rows.fresh.reshape(-1, *[1] * (z.ndim - 1)), new, z)
            for z, new in zip(rows.codes, forward(model, batch.x), strict=True)
        )
        objective = jnp.mean(energy(self.loss, model, codes, batch, mu))
        codes = self.solve(model, codes, batch, mu)

        def regressions(model: Chain) -> Array:
            return jnp.mean(energy(self.loss, model, codes, batch, mu))

        solved, update = eqx.filter_value_and_grad(regressions)(model)
        if self.regression == "gauss-newton":
            old, new = (eqx.filter(m, eqx.is_inexact_array) for m in (model, self.regress(model, codes, batch)))
            update = jax.tree.map(jnp.subtract, old, new)
        coordinates = put_rows(memory.coordinates, index, Coordinates(codes, jnp.zeros_like(rows.fresh)))
        metrics = {
            "mu": mu,
            "objective": objective,
            "solved": solved,
            "violation": jnp.mean(violation(model, codes, batch.x)),
        }
        loss = jnp.mean(self.loss(output, batch.y))
        return Credit(loss, output, (update, None), Memory(coordinates, memory.step + 1), metrics)

    def penalty(self, step: Int[Array, ""], dtype: jnp.dtype) -> Float[Array, ""]:
        """The weight mu at a step, in the precision of the codes."""
        grown = jnp.log(self.mu) + step.astype(dtype) / self.mu_every * jnp.log(self.growth)
        return jnp.exp(jnp.minimum(grown, jnp.log(0.01 / jnp.finfo(dtype).eps))).astype(dtype)

    def solve(self, model: Chain, codes: Codes, batch: Batch, mu: Float[Array, ""]) -> Codes:
        """The Z-step: one Gauss-Newton step on the codes of each example, which never raises its energy."""
        if not codes:
            return codes

        def one(codes: tuple[Array, ...], x: Array, y: Array) -> tuple[Array, ...]:
            def residuals(codes: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...]]:
                return unfold(model, tuple(z[None] for z in codes), x[None])

            def cost(residuals: tuple[Array, tuple[Array, ...]]) -> Array:
                output, gaps = residuals
                return jnp.sum(self.loss(output, y[None])) + mu / 2 * sum(jnp.sum(gap**2) for gap in gaps)

            return gauss_newton(cost, residuals, codes, iterations=self.iterations)

        return jax.vmap(one)(codes, batch.x, batch.y)

    def regress(self, model: Chain, codes: Codes, batch: Batch) -> Chain:
        """The W-step by Gauss-Newton: one step on each layer's own regression, its inputs and outputs codes.

        The penalty's weight is left out: it scales a layer's problem and does not move its solution.
        """
        *below, top = (batch.x, *codes)
        for k, (h, z) in enumerate(zip(below, codes, strict=True)):
            model = fit_layer(model, k, h, lambda output, z=z: jnp.mean((z - output) ** 2), iterations=self.iterations)
        return self.fit_output(model, top, batch)

    def fit_output(self, model: Chain, features: Float[Array, "batch ..."], batch: Batch) -> Chain:
        """The model after a Gauss-Newton step on its last layer, from these features to the targets."""
        return fit_layer(
            model, -1, features, lambda output: jnp.mean(self.loss(output, batch.y)), iterations=self.iterations
        )

    def finish(self, learner: Learner, batch: Batch, *, steps: int = 10) -> Learner:
        """Fit the last layer to the features that the net below it computes.

        The nested cost, `mean(loss(model(x), y))`, never rises by it. Call it once, after training.

        Args:
            learner: a trained learner.
            batch: examples to fit to: the training set, or as much of it as fits.
            steps: Gauss-Newton steps.

        Raises:
            ValueError: `steps` is below 1, or the loss is the hinge.
        """
        count("steps", steps)
        if isinstance(self.loss, Hinge):
            raise ValueError(
                "loss=Hinge() has no curvature for finish to take Gauss-Newton steps by; call "
                f"{type(self).__name__}(loss='squared-error').finish with the same learner"
            )
        params, rest = eqx.partition(learner.model, eqx.is_inexact_array)
        *_, features = (batch.x, *forward(learner.model, batch.x))

        def step(params: PyTree, _: None) -> tuple[PyTree, None]:
            fitted = self.fit_output(eqx.combine(params, rest), features, batch)
            return eqx.filter(fitted, eqx.is_inexact_array), None

        params, _ = jax.lax.scan(step, params, length=steps)
        return Learner(eqx.combine(params, rest), learner.feedback, learner.memory)


def fit_layer(
    model: Chain,
    k: int,
    h: Float[Array, "batch ..."],
    cost: Callable[[Float[Array, "batch ..."]], Float[Array, ""]],
    *,
    iterations: int,
) -> Chain:
    """The model after a Gauss-Newton step of its k-th layer on a cost of what it makes of its input `h`."""
    params, rest = eqx.partition(model, eqx.is_inexact_array)

    def output(params: PyTree) -> Array:
        # The input is constant, so no other layer has anything to gain.
        return layers(eqx.combine(params, rest))[k](h)

    return eqx.combine(gauss_newton(cost, output, params, iterations=iterations), rest)


def forward(model: Chain, x: Float[Array, "batch ..."]) -> Codes:
    """The codes that the net computes: z_k = f_k(z_{k-1}), k = 1 .. K."""
    codes: Codes = ()
    for layer in layers(model)[:-1]:
        x = layer(x)
        codes += (x,)
    return codes


def unfold(model: Chain, codes: Codes, x: Float[Array, "batch ..."]) -> tuple[Float[Array, "batch ..."], Codes]:
    """The output f_{K+1}(z_K), and the gaps z_k - f_k(z_{k-1})."""
    *below, last = layers(model)
    *inputs, top = (x, *codes)
    return last(top), tuple(z - layer(h) for z, layer, h in zip(codes, below, inputs, strict=True))


def violation(model: Chain, codes: Codes, x: Float[Array, "batch ..."]) -> Float[Array, " batch"]:
    """sum_k ||z_k - f_k(z_{k-1})||^2 of each example."""
    gaps = unfold(model, codes, x)[1]
    return sum((jnp.sum(gap**2, axis=tuple(range(1, gap.ndim))) for gap in gaps), jnp.zeros(len(x)))


def energy(loss: Loss, model: Chain, codes: Codes, batch: Batch, mu: Float[Array, ""]) -> Float[Array, " batch"]:
    """E(n) of each example."""
    output, _ = unfold(model, codes, batch.x)
    return loss(output, batch.y) + mu / 2 * violation(model, codes, batch.x)
