"""Chains of stages, and the two stages that are made of others: residual blocks and recurrent layers."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from .._checks import count, shape
from ._activations import Activation
from ._initialisers import Initialiser, initialiser
from ._stage import Dense, Stage, Trace, _activation, sites


class Series(Stage):
    """Stages one after the other, each fed with what the one before it returns.

    Args:
        stages: the stages, first to last.
    """

    stages: tuple[Stage, ...]

    def __call__(self, h: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """Return the last stage's output."""
        for stage in self.stages:
            h = stage(h)
        return h

    def record(self, h: Float[Array, "batch ..."]) -> tuple[Float[Array, "batch ..."], tuple[Trace, ...]]:
        """Return the output and the traces of all sites, first to last."""
        traces: tuple[Trace, ...] = ()
        for stage in self.stages:
            h, own = stage.record(h)
            traces += own
        return h, traces


class Chain(Series):
    """A whole network, h_l = stage_l(h_{l-1}), h_0 = x: a series of stages that is known to fit.

    Args:
        stages: the stages, first to last.
        input_shape: shape of one example as the first stage wants it, without the batch axis, such as
            `(784,)` or `(28, 28, 1)`. It lets data be delivered in the right shape and lets rules
            size their feedback before training. Default: the fan-in of a dense first stage.

    Raises:
        ValueError: no stages, no `input_shape` where the first stage is not dense, one that is no shape, or stages
            whose sizes do not fit each other.
    """

    input_shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, stages: Sequence[Stage], *, input_shape: tuple[int, ...] | None = None):
        if not stages:
            raise ValueError("stages is empty: pass at least one stage")
        self.stages = tuple(stages)
        if input_shape is None:
            first = self.stages[0]
            if not isinstance(first, Dense):
                raise ValueError("input_shape is missing: only a chain that begins with Dense can tell its own")
            input_shape = (first.weight.shape[0],)
        self.input_shape = shape("input_shape", input_shape)
        h = self._example()
        for i, stage in enumerate(self.stages):
            try:
                h = _shape_after(stage, h)
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"stages[{i}] ({type(stage).__name__}) does not take activities of shape {h.shape[1:]}; "
                    f"give it the sizes of the stage before it, or pass another input_shape ({error})"
                ) from error

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of one example's output, without the batch axis."""
        return _shape_after(self, self._example()).shape[1:]

    def _example(self) -> jax.ShapeDtypeStruct:
        """Shape and type of a batch of one, in the precision of the weights."""
        dtype = jnp.result_type(*([site.weight for site in sites(self.stages)] or [float]))
        return jax.ShapeDtypeStruct((1, *self.input_shape), dtype)


def _shape_after(stage: Stage, h: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """Shape and type of what a stage returns. JAX is given a plain function: of any other it prints every field."""
    return jax.eval_shape(lambda h: stage(h), h)


class Residual(Stage):
    """A residual block, h' = f(body(h) + shortcut(h)): one stage, whose skip passes the error on unchanged.

    Args:
        body: the stages that compute the residual.
        shortcut: stages on the skip, where the body changes the shape; default: the identity.
        activation: name or elementwise function applied to the sum, see `activation`.
    """

    body: tuple[Stage, ...]
    shortcut: tuple[Stage, ...]
    activation: Activation = eqx.field(static=True)

    def __init__(
        self, body: Sequence[Stage], *, shortcut: Sequence[Stage] = (), activation: str | Activation = "identity"
    ):
        self.body, self.shortcut = tuple(body), tuple(shortcut)
        self.activation = _activation(activation)

    def __call__(self, h: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """Return f(body(h) + shortcut(h))."""
        return self.record(h)[0]

    def record(self, h: Float[Array, "batch ..."]) -> tuple[Float[Array, "batch ..."], tuple[Trace, ...]]:
        """Return the output and the traces of the body's sites, then the shortcut's.

        Raises:
            ValueError: body and shortcut return other shapes than each other; a sum would repeat an axis of 1.
        """
        residual, skip = h, h
        traces: tuple[Trace, ...] = ()
        for stage in self.body:
            residual, own = stage.record(residual)
            traces += own
        for stage in self.shortcut:
            skip, own = stage.record(skip)
            traces += own
        if residual.shape != skip.shape:
            raise ValueError(
                f"body returns activities of shape {residual.shape[1:]} and shortcut of shape {skip.shape[1:]}; "
                "pass a body or a shortcut that gives both the same shape"
            )
        return self.activation(residual + skip), traces


class Elman(Stage):
    """A recurrent layer, h_t = f(x_t W + h_{t-1} R + b), h_0 = 0, over sequences (batch, time, features).

    Args:
        fan_in: features of one time step.
        units: number of recurrent units.
        activation: name or elementwise function, see `activation`.
        sequence: return every h_t, (batch, time, units), instead of the last one, (batch, units).
        init: initialiser of the input weight.
        recurrent_init: initialiser of the recurrent weight; orthogonal keeps long sequences trainable.
        key: random key for the weights.

    Raises:
        ValueError: a size is not a positive integer, or a name is unknown.
    """

    input: Dense
    recurrent: Dense
    activation: Activation = eqx.field(static=True)
    sequence: bool = eqx.field(static=True)

    def __init__(
        self,
        fan_in: int,
        units: int,
        *,
        activation: str | Activation = "tanh",
        sequence: bool = False,
        init: str | Initialiser = "glorot-normal",
        recurrent_init: str | Initialiser = "orthogonal",
        key: Key[Array, ""],
    ):
        count("fan_in", fan_in)
        count("units", units)
        recurrent_init = initialiser(recurrent_init, argument="recurrent_init")
        key_input, key_recurrent = jax.random.split(key)
        self.input = Dense(fan_in, units, init=init, key=key_input)
        self.recurrent = Dense(units, units, bias=False, init=recurrent_init, key=key_recurrent)
        self.activation = _activation(activation)
        self.sequence = sequence

    def step(self, h: Float[Array, "batch units"], x: Float[Array, "batch features"]) -> Float[Array, "batch units"]:
        """One time step, f(x W + h R + b)."""
        return self.activation(self.input(x) + self.recurrent(h))

    def start(self, x: Float[Array, "batch time features"]) -> Float[Array, "batch units"]:
        """The state before the first step, h_0 = 0."""
        return jnp.zeros((x.shape[0], self.recurrent.weight.shape[0]), x.dtype)

    def __call__(self, h: Float[Array, "batch time features"]) -> Float[Array, "batch ..."]:
        """Return the last state, or all of them."""

        def advance(state: Array, x: Array) -> tuple[Array, Array | None]:
            state = self.step(state, x)
            return state, state if self.sequence else None

        last, states = jax.lax.scan(advance, self.start(h), jnp.moveaxis(h, 1, 0))
        return last if states is None else jnp.moveaxis(states, 0, 1)

    def record(self, h: Float[Array, "batch time features"]) -> tuple[Array, tuple[Trace, ...]]:
        """Refused: a site here acts once a time step, so it has no single trace.

        Raises:
            TypeError: always.
        """
        raise TypeError(
            "this rule needs one activity a layer, and an Elman layer has one a time step; pass a chain without "
            "recurrence, or choose Backprop, FeedbackAlignment, KolenPollack, SignSymmetry, ForwardGradient "
            "(in weights), WeightPerturbation or RealTimeRecurrentLearning"
        )
