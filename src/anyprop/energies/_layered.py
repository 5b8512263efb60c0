"""Chains read as layered systems in which every weight acts in both directions.

    Phi = sum_k <r_k, W_k r_{k-1} + b_k>,    r_0 = x,   k = 1 ... L

is the sum of what each layer's rates r_k get from the layer below. W_k is any affine layer of the chain; pooling and
flattening between two layers belong to the W_k that follows. Pooling between an affine layer and an activation that
stands by itself pools the drive: the state is that of the pooled units. A residual block is one more affine way from
below: its shortcut's drive is added to that of its last layer.
"""

import abc
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..nets import ACTIVATIONS, Activate, Activation, Affine, Chain, Flatten, Pool, Residual, Series, Stage, for_loops
from ._energy import Energy
from ._reading import Reading

Activity = Float[Array, "batch ..."]
Respond = Callable[[Activation, Activity], Activity]

LINEAR = ACTIVATIONS["identity"]

RANGES: dict[Activation, tuple[float, float]] = {
    ACTIVATIONS["hard-sigmoid"]: (0.0, 1.0),
    ACTIVATIONS["relu"]: (0.0, jnp.inf),
}
"""Activations with f(a) = the point nearest to a in a range, and that range."""


class Layered(Reading, Energy):
    """A chain of affine layers, each with a state of its own; what `Hopfield` and `Convergent` have in common."""

    chain: Chain

    def __check_init__(self):
        """Refuse stages that have no place in the energy."""
        name = type(self).__name__
        _check(name, self.chain.stages, "stages")
        if not isinstance(last := self.chain.stages[-1], Affine | Residual | Activate):
            raise TypeError(
                f"{name} reads its answer from its last layer, but the chain ends with a {type(last).__name__}; pass "
                "one that ends with a dense or convolutional layer"
            )

    @property
    def activations(self) -> list[Activation]:
        """The activation of each layer."""
        return _activations(self.chain.stages)

    @abc.abstractmethod
    def rates(self, state: PyTree) -> list[Activity]:
        """Return what every layer's state sounds like to the others: its rates r_1 ... r_L."""

    def start(self, x: Activity) -> list[Activity]:
        """Return zeros for every layer."""
        shapes: list[jax.ShapeDtypeStruct] = []

        def respond(activation: Activation, drive: Activity) -> Activity:
            shapes.append(jax.ShapeDtypeStruct(drive.shape, drive.dtype))
            return activation(drive)

        jax.eval_shape(lambda x: walk(self.chain.stages, x, respond), x)
        return [jnp.zeros(shape.shape, shape.dtype) for shape in shapes]


def primitive(chain: Chain, rates: Sequence[Activity], x: Activity) -> Float[Array, " batch"]:
    """Phi: the inner product of every layer's rates with its drive from below."""
    phi, layers = jnp.zeros(len(x)), iter(rates)

    def respond(activation: Activation, drive: Activity) -> Activity:
        del activation
        nonlocal phi
        rate = next(layers)
        phi += inner(rate, drive)
        return rate

    walk(chain.stages, x, respond)
    return phi


def walk(stages: Sequence[Stage], rate: Activity, respond: Respond) -> Activity:
    """Visit the layers upwards; `respond` tells what rate a layer has, given its activation and its drive."""
    for i, stage in enumerate(stages):
        if isinstance(stage, Affine):
            drive = for_loops(stage).drive(rate)
            rate = drive if _activated_later(stages[i + 1 :]) else respond(stage.activation, drive)
        elif isinstance(stage, Activate):
            rate = respond(stage.activation, rate)
        elif isinstance(stage, Residual):
            *body, last = stage.body
            assert isinstance(last, Affine)
            drive = for_loops(last).drive(walk(body, rate, respond)) + Series(for_loops(stage.shortcut))(rate)
            rate = respond(stage.activation, drive)
        else:
            rate = stage(rate)
    return rate


def inner(a: Activity, b: Activity) -> Float[Array, " batch"]:
    """The inner product of each example's activities; of complex ones without conjugation."""
    return jnp.sum(a * b, axis=tuple(range(1, a.ndim)))


def _activated_later(rest: Sequence[Stage]) -> bool:
    """Whether an activation of its own follows an affine layer, with nothing but pooling in between."""
    return isinstance(_next(rest), Activate)


def _next(stages: Sequence[Stage]) -> Stage | None:
    """The first stage that is more than pooling or flattening."""
    return next((stage for stage in stages if not isinstance(stage, Pool | Flatten)), None)


def _activations(stages: Sequence[Stage]) -> list[Activation]:
    found: list[Activation] = []
    for i, stage in enumerate(stages):
        if isinstance(stage, Activate) or (isinstance(stage, Affine) and not _activated_later(stages[i + 1 :])):
            found.append(stage.activation)
        elif isinstance(stage, Residual):
            found += [*_activations(stage.body[:-1]), stage.activation]
    return found


def _check(name: str, stages: Sequence[Stage], path: str) -> None:
    for i, stage in enumerate(stages):
        if isinstance(stage, Residual):
            _check(name, stage.body, f"{path}[{i}].body")
            joined = [*stage.body[-1:], *(s for s in stage.shortcut if isinstance(s, Affine))]
            if not stage.body or not all(isinstance(s, Affine) and s.activation is LINEAR for s in joined):
                raise TypeError(
                    f"{name} adds the shortcut of {path}[{i}] to the drive of the block's last layer; pass a body that "
                    "ends with an affine layer without activation, and a shortcut of such layers"
                )
            _check(name, stage.shortcut, f"{path}[{i}].shortcut")
        elif isinstance(stage, Affine) and _activated_later(stages[i + 1 :]) and stage.activation is not LINEAR:
            raise TypeError(
                f"{name} has one activation a layer, but {path}[{i}] has its own besides the one that follows; pass "
                "activation='identity' there"
            )
        elif isinstance(stage, Activate) and not isinstance(_next(stages[:i][::-1]), Affine):
            raise TypeError(
                f"{name} has no energy for an activation that no affine layer leads to ({path}[{i}]); pass a chain in "
                "which it follows a dense or convolutional layer, with at most pooling in between"
            )
        elif not isinstance(stage, Activate | Affine | Pool | Flatten):
            raise TypeError(
                f"{name} has no energy for a {type(stage).__name__} ({path}[{i}]); pass a chain of dense and "
                "convolutional layers, with pooling and flattening between them and residual blocks of these, such as "
                "ap.nets.mlp(784, 500, 10, activation='hard-sigmoid', output='hard-sigmoid', key=key)"
            )
