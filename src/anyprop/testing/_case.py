"""A rule under test: small networks and batches that it can learn, and programs that several checks share."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key, PyTree

from ..contract import Batch, Credit, DataInfo, Learner, Needs, Rule, exact_gradient
from ..diagnose._layers import by_layer, cosine
from ..nets import Chain, elman, mlp

EXAMPLES = 10
SEEDS = 8
STEPS = 100
LEARNING_RATES = (0.003, 0.01, 0.03)

DEPTHS = (1, 2, 4, 8)
"""Numbers of layers to sweep; the other checks run at depth 3."""

QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""Compiler options: programs this small take longer to optimise than to run."""


Models = Callable[[Array, int], PyTree]
"""(key, depth) -> a small network of that many layers."""

Batches = Callable[[Array, PyTree], Batch]
"""(key, model) -> a small batch that the network can learn."""


class Inapplicable(Exception):
    """A check has no meaning for this rule; the message says why."""


class Training(NamedTuple):
    """What happened while a rule trained small networks with Adam, at each of `LEARNING_RATES`.

    Args:
        losses: cost at each step.
        cosines: by layer, the cosine of the update with the exact gradient; NaN where one of them is zero.
        moves: by layer, the norm of the update.
        gradients: by layer, the norm of the exact gradient.
    """

    losses: Float[Array, "rates seeds steps"]
    cosines: dict[str, Float[Array, "rates seeds steps"]]
    moves: dict[str, Float[Array, "rates seeds steps"]]
    gradients: dict[str, Float[Array, "rates seeds steps"]]


@dataclasses.dataclass(eq=False)
class Case:
    """A rule and what it is tested on.

    Args:
        rule: the rule.
        model: (key, depth) -> a small network of that many layers.
        batch: (key, model) -> a small batch that the network can learn.
        depths: numbers of layers to sweep; empty if the network has only one depth.
    """

    rule: Rule
    model: Models
    batch: Batches
    depths: Sequence[int]

    def learner(self, seed: int = 0, *, depth: int = 3, scale: float = 1.0, rule: Rule | None = None) -> Learner:
        """A fresh learner, its model's weights times `scale`; `rule` stands in for the rule under test."""
        key_model, key_rule = jax.random.split(jax.random.key(seed))
        weights, rest = eqx.partition(self.model(key_model, depth), eqx.is_inexact_array)
        model = eqx.combine(jax.tree.map(lambda w: scale * w, weights), rest)
        return self.init(model, key_rule, rule or self.rule)

    def init(self, model: PyTree, key: Key[Array, ""], rule: Rule) -> Learner:
        """What `rule.init` makes of a model, told of the data as training tells it."""
        batch = self.batch(jax.random.key(0), model)
        x, y = (jax.ShapeDtypeStruct(a.shape[1:], a.dtype) for a in (batch.x, batch.y))
        return rule.init(model, data=DataInfo(len(batch.x), x, y), key=key)

    def examples(self, seed: int = 0) -> Batch:
        """A batch for `learner()`."""
        return self.batch(jax.random.key(seed), self.model(jax.random.key(0), 3))

    @cached_property
    def credit(self) -> Callable[[Learner, Batch, Key[Array, ""]], Credit]:
        """The rule's credit, compiled; `traces` counts how often it was traced."""
        self.traces = 0

        def credit(learner: Learner, batch: Batch, key: Array) -> Credit:
            self.traces += 1
            return self.rule.credit(learner, batch, key=key)

        return compiled(credit)

    @cached_property
    def random(self) -> bool:
        """Whether the update depends on the key."""
        learner, batch = self.learner(), self.examples()
        one, other = (self.credit(learner, batch, jax.random.key(seed)) for seed in (1, 2))
        return not eqx.tree_equal(one.grads, other.grads)

    @cached_property
    def training(self) -> Training:
        """Training from weights of the usual size."""
        return self._trained(1.0)

    @cached_property
    def training_from_small_weights(self) -> Training:
        """Training from weights of a tenth of the usual size."""
        return self._trained(0.1)

    def _trained(self, scale: float) -> Training:
        """Train `SEEDS` networks, whose weights start at `scale` times the usual."""
        arrays, _ = stack([self.learner(seed, scale=scale) for seed in range(SEEDS)])
        keys = jax.random.split(jax.random.key(7), SEEDS)
        return jax.tree.map(np.asarray, self._train(arrays, keys, jnp.asarray(LEARNING_RATES)))

    @cached_property
    def _train(self) -> Callable[[PyTree, Key[Array, " seeds"], Float[Array, " rates"]], Training]:
        """(arrays of the learners, keys, rates) -> all seeds at all rates, in one program."""
        static = eqx.filter(self.learner(), eqx.is_array, inverse=True)
        batch, optimizer = self.examples(), optax.scale_by_adam()

        def train(arrays: PyTree, key: Array, rate: Array) -> Training:
            def step(carry: tuple[PyTree, PyTree], key: Array) -> tuple[tuple[PyTree, PyTree], Training]:
                arrays, state = carry
                learner = eqx.combine(arrays, static)
                credit = self.rule.credit(learner, batch, key=key)
                gradient = by_layer(learner.model, exact_gradient(self.rule.loss, learner.model, batch)[2])
                update = by_layer(learner.model, credit.grads[0])
                seen = Training(
                    credit.loss,
                    {name: cosine(update[name], gradient[name]) for name in gradient},
                    {name: jnp.linalg.norm(update[name]) for name in gradient},
                    {name: jnp.linalg.norm(gradient[name]) for name in gradient},
                )
                moves, state = optimizer.update(credit.grads, state, learner.params)
                learner = learner.apply(jax.tree.map(lambda move: -rate * move, moves), credit.memory)
                return (eqx.filter(learner, eqx.is_array), state), seen

            state = optimizer.init(eqx.combine(arrays, static).params)
            return jax.lax.scan(step, (arrays, state), jax.random.split(key, STEPS))[1]

        seeds = jax.vmap(train, in_axes=(0, 0, None))
        return compiled(jax.vmap(seeds, in_axes=(None, None, 0)))


def case(
    rule: Rule,
    *,
    model: Models | None = None,
    batch: Batches | None = None,
    depths: Sequence[int] | None = None,
) -> Case:
    """A `Case` with the networks and batches that fit most rules where none are given."""
    if model is None and rule.card.needs is Needs.ELMAN:
        model, depths = small_elman, depths or ()
    return Case(rule, model or small_mlp, batch or blobs, DEPTHS if depths is None else depths)


def small_mlp(key: Key[Array, ""], depth: int, **options: Any) -> Chain:
    """An mlp of `depth` layers. Up to depth 3 all widths differ, so that no transposed index fits."""
    hidden = [7, *[6] * depth][: depth - 1]
    return mlp(8, *hidden, 5, key=key, **options)


def small_elman(key: Key[Array, ""], depth: int) -> Chain:
    """An Elman network, whatever the depth."""
    del depth
    return elman(4, 6, 5, steps=3, key=key)


def blobs(key: Key[Array, ""], model: PyTree) -> Batch:
    """Inputs in one cloud for each class, shaped as `model` takes them."""
    outputs = getattr(model, "output_shape", None)  # once: a chain works it out anew each time
    if outputs is None or not hasattr(model, "input_shape"):
        raise TypeError(
            f"a {type(model).__name__} does not tell the shape of its input; pass batch=(key, model) -> Batch"
        )
    classes = outputs[-1]
    y = jnp.arange(EXAMPLES) % classes
    key_centre, key_noise = jax.random.split(key)
    centres = jax.random.normal(key_centre, (classes, *model.input_shape))
    x = centres[y] + 0.3 * jax.random.normal(key_noise, (EXAMPLES, *model.input_shape))
    return Batch(x, y, jnp.arange(EXAMPLES))


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function without costly optimisations."""
    # Equinox hands what it does not know on to jax.jit, which its type hints do not say.
    return eqx.filter_jit(function, compiler_options=QUICK)  # pyright: ignore[reportCallIssue]


def stack(learners: Sequence[Learner]) -> tuple[PyTree, PyTree]:
    """Like learners as one, their arrays stacked along a new first axis, and what is no array apart."""
    parts = [eqx.partition(learner, eqx.is_array) for learner in learners]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *(arrays for arrays, _ in parts)), parts[0][1]


def step(learner: Learner, credit: Credit) -> Learner:
    """The learner after one step of plain SGD."""
    optimizer = optax.sgd(0.1)
    updates, _ = optimizer.update(credit.grads, optimizer.init(learner.params), learner.params)
    return learner.apply(updates, credit.memory)


def require(condition: object, message: str) -> None:
    """Fail the check with `message` unless `condition` holds."""
    if not condition:
        raise AssertionError(message)


def require_equal(got: PyTree, expected: PyTree, what: str) -> None:
    """Fail the check unless two trees are equal to rounding in double precision."""
    paths, expected_def = jax.tree_util.tree_flatten_with_path(eqx.filter(expected, eqx.is_array))
    leaves, got_def = jax.tree.flatten(eqx.filter(got, eqx.is_array))
    require(got_def == expected_def, f"{what}: the structure differs, {got_def} against {expected_def}")
    for (path, e), g in zip(paths, leaves, strict=True):
        e, g = numbers(e), numbers(g)
        if not (e.shape == g.shape and np.allclose(g, e, rtol=1e-6, atol=1e-9, equal_nan=True)):
            raise AssertionError(f"{what}: {jax.tree_util.keystr(path)} differs, {g} against {e}")


def numbers(leaf: Array) -> np.ndarray:
    """An array, or the data of an array of keys, in NumPy."""
    return np.asarray(jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf)
