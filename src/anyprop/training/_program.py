"""The compiled pieces of a run: one epoch of training, one evaluation of a split, one probe of the rule.

Where it can, an epoch is one program: the data stay on the device as they were stored, the order is
drawn there, and the steps are a `lax.scan`, for all seeds: at once under `vmap`, or on a CPU in turn, as a
product of matrices fills it and the weights of many seeds do not fit its cache (measured: ten seeds of
784-500-10 take 12.4 times as long as one under `vmap`, 10.6 times in turn). A seed's numbers are then the
same to the last bit whatever runs beside it. XLA's convolutions on a CPU are the exception: inside a scan
it takes a slow path for them (measured: LeNet-5 runs 3 to 4 times slower). There a step is one program,
called in a loop. Small convolutions are matrix products instead (see `Conv`), and need no exception.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from ..contract import Batch, DataInfo, Learner, Rule
from ..data import Data, Split
from ..diagnose import alignment, feedback_alignment_angles
from ..losses import wrong
from ..nets import Chain, Conv, sites

EVALUATION_CHUNK = 1000  # examples of one forward pass: wide enough for full speed, small enough to fit
PROBE = 256  # training examples on which the rule is compared with the exact gradient


class State(NamedTuple):
    """What an epoch changes: the learner's arrays and the optimizer's."""

    learner: PyTree
    optimizer: PyTree


class Steps(NamedTuple):
    """What the steps of an epoch report, step by step."""

    loss: Float[Array, "*seeds_steps"]
    error: Float[Array, "*seeds_steps"]
    metrics: Mapping[str, Array]


class Program:
    """A rule, an optimizer and data, compiled.

    Args:
        rule: the rule.
        optimizer: the optimizer.
        data: the data, in the shape that the model takes.
        learners: one learner a seed; all of the same structure.
        batch_size: examples of one step.
        alignment: whether `probe` compares the rule with the exact gradient.
    """

    def __init__(
        self,
        rule: Rule,
        optimizer: optax.GradientTransformation,
        data: Data,
        learners: list[Learner],
        *,
        batch_size: int,
        alignment: bool,
    ):
        self.rule, self.optimizer, self.data, self.batch_size = rule, optimizer, data, batch_size
        self.alignment = alignment
        self.seeds = len(learners)
        self.steps = len(data.train) // batch_size
        self.whole = not (jax.default_backend() == "cpu" and _convolves(learners[0].model))
        arrays, static = zip(*(eqx.partition(learner, eqx.is_array) for learner in learners), strict=True)
        self.static = static[0]
        states = [State(a, optimizer.init(learner.params)) for a, learner in zip(arrays, learners, strict=True)]
        self.start: State = stack(states)
        self.train = on_device(data.train)
        self.compiled: dict[str, Any] = {}

    def learner(self, state: State, seed: int) -> Learner:
        """The learner of one seed."""
        return eqx.combine(pick(state.learner, seed), self.static)

    def _run(self, name: str, function: Any, *args: Any, donate: tuple[int, ...] = ()) -> Any:
        # Compiled ahead of the first call, so that a changed shape is an error, never a recompilation.
        if name not in self.compiled:
            self.compiled[name] = jax.jit(function, donate_argnums=donate).lower(*args).compile()
        return self.compiled[name](*args)

    def _each(self, function: Callable[..., PyTree], own: int) -> Callable[..., PyTree]:
        """`function` of every seed; its first `own` arguments have an axis of seeds, the others are shared."""
        in_turn = self.seeds == 1 or jax.default_backend() == "cpu"

        def every(*args: PyTree) -> PyTree:
            def one(mine: tuple[PyTree, ...]) -> PyTree:
                return function(*mine, *args[own:])

            return jax.lax.map(one, args[:own]) if in_turn else jax.vmap(one)(args[:own])

        return every

    # One epoch ---------------------------------------------------------------------------------------

    def _step(self, state: State, index: Array, key: Array, x: Array, y: Array) -> tuple[State, Steps]:
        key_augment, key_credit = jax.random.split(key)
        raw = x[index]
        if self.data.augmentation:
            raw = self.data.augment(raw, key=key_augment)
        batch = Batch(self.data.transform(raw), y[index], index)
        learner = eqx.combine(state.learner, self.static)
        credit = self.rule.credit(learner, batch, key=key_credit)
        updates, moved = self.optimizer.update(credit.grads, state.optimizer, learner.params)
        learner = learner.apply(updates, credit.memory)
        error = jnp.mean(wrong(credit.output, batch.y, self.rule.loss.threshold), dtype=jnp.float32)
        return State(eqx.filter(learner, eqx.is_array), moved), Steps(credit.loss, error, dict(credit.metrics))

    def _order(self, key: Key[Array, ""]) -> tuple[Int[Array, "steps batch"], Key[Array, " steps"]]:
        key_order, key_steps = jax.random.split(key)
        order = jax.random.permutation(key_order, len(self.data.train))
        order = order[: self.steps * self.batch_size].reshape(self.steps, self.batch_size)
        return order, jax.random.split(key_steps, self.steps)

    def _epoch(self, state: State, key: Array, x: Array, y: Array) -> tuple[State, Steps]:
        order, keys = self._order(key)
        return jax.lax.scan(lambda s, now: self._step(s, *now, x, y), state, (order, keys))

    def compile(self, state: State, keys: Key[Array, " seeds"]) -> None:
        """Compile the epoch before it is timed."""
        if self.whole:
            epoch = self._each(self._epoch, 2)
            lowered = jax.jit(epoch, donate_argnums=0).lower(state, keys, *self.train)
            self.compiled["epoch"] = lowered.compile()
        else:
            order, step_keys = jax.eval_shape(self._order, keys[0])
            one = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), (order, step_keys))
            lowered = jax.jit(self._step, donate_argnums=0).lower(pick(state, 0), *one, *self.train)
            self.compiled["step"] = lowered.compile()

    def epoch(self, state: State, keys: Key[Array, " seeds"]) -> tuple[State, Steps]:
        """Train every seed for one epoch; `state` is used up. `Steps` come as (seeds, steps)."""
        if self.whole:
            return self.compiled["epoch"](state, keys, *self.train)
        states, reports = [], []
        for seed in range(self.seeds):
            one, steps = pick(state, seed), []
            order, step_keys = self._run("order", self._order, keys[seed])
            for index, key in zip(order, step_keys, strict=True):
                one, step = self.compiled["step"](one, index, key, *self.train)
                steps.append(step)
            states.append(one)
            reports.append(stack(steps))
        return stack(states), stack(reports)

    def finite(self, state: State) -> Bool[Array, " seeds"]:
        """Whether every weight of each seed is finite."""
        weights = jax.tree.leaves(eqx.filter(state.learner.model, eqx.is_inexact_array))
        return jnp.stack([jnp.isfinite(w).reshape(self.seeds, -1).all(axis=1) for w in weights]).all(axis=0)

    # Looking at the result ---------------------------------------------------------------------------

    def _evaluate(self, learner: PyTree, x: Array, y: Array) -> tuple[Array, Array]:
        """Sums over examples of the cost and of the errors, for a whole number of chunks."""
        model = eqx.combine(learner, self.static).model

        def chunk(raw: Array, y: Array) -> tuple[Array, Array]:
            loss, output = self.rule.loss, model(self.data.transform(raw))
            return jnp.sum(loss(output, y)), jnp.sum(wrong(output, y, loss.threshold), dtype=jnp.float32)

        size = min(EVALUATION_CHUNK, len(x))
        chunks = len(x) // size
        loss, error = jax.lax.map(
            lambda c: chunk(*c),
            (
                x[: chunks * size].reshape(chunks, size, *x.shape[1:]),
                y[: chunks * size].reshape(chunks, size, *y.shape[1:]),
            ),
        )
        loss, error = loss.sum(), error.sum()
        if len(x) % size:
            rest = chunk(x[chunks * size :], y[chunks * size :])
            loss, error = loss + rest[0], error + rest[1]
        return loss / len(x), error / len(x)

    def evaluate(self, state: State, name: str, split: tuple[Array, Array]) -> tuple[Array, Array]:
        """Mean cost and fraction of errors of every seed on a split."""
        if self.whole:
            evaluate = self._each(self._evaluate, 1)
            return self._run(name, evaluate, state.learner, *split)
        x, y = split
        results = []
        for seed in range(self.seeds):
            learner, parts = pick(state.learner, seed), []
            for at in range(0, len(x), EVALUATION_CHUNK):
                part = x[at : at + EVALUATION_CHUNK], y[at : at + EVALUATION_CHUNK]
                loss, error = self._run(f"evaluate {len(part[0])}", self._evaluate, learner, *part)
                parts.append(jnp.stack([loss, error]) * len(part[0]))
            results.append(sum(parts) / len(x))
        return tuple(jnp.stack(results, axis=1))

    def _probe(self, learner: PyTree, key: Array, x: Array, y: Array) -> tuple[dict, dict]:
        whole = eqx.combine(learner, self.static)
        index = jnp.arange(min(PROBE, len(x)))
        batch = Batch(self.data.transform(x[index]), y[index], index)
        return alignment(self.rule, whole, batch, key=key), feedback_alignment_angles(self.rule, whole)

    def probe(self, state: State, keys: Key[Array, " seeds"]) -> list[dict[str, dict[str, float]]]:
        """Angles, in degrees, to the exact gradient and between feedback and forward weights, by seed."""
        if not self.alignment:
            return [{} for _ in range(self.seeds)]
        if self.whole:
            probe = self._each(self._probe, 2)
            angles = self._run("probe", probe, state.learner, keys, *self.train)
        else:
            angles = stack(
                [
                    self._run("probe", self._probe, pick(state.learner, s), keys[s], *self.train)
                    for s in range(self.seeds)
                ]
            )
        names = ("alignment", "feedback_alignment")
        return [
            {n: {k: float(a[seed]) for k, a in found.items()} for n, found in zip(names, angles, strict=True) if found}
            for seed in range(self.seeds)
        ]


def _convolves(model: PyTree) -> bool:
    """Whether XLA's own convolution is used anywhere in the model, which is slow inside a scan on a CPU."""
    if not any(isinstance(site, Conv) for site in sites(model)):
        return False
    if not isinstance(model, Chain):
        return True
    _, traces = jax.eval_shape(model.record, jax.ShapeDtypeStruct((1, *model.input_shape), jnp.float32))
    return any(
        isinstance(site, Conv) and not site.map.as_product(trace.input.shape, site.weight.shape)
        for site, trace in zip(sites(model), traces, strict=True)
    )


def on_device(split: Split) -> tuple[Array, Array]:
    """The examples and labels of a split as device arrays, stored as they are."""
    return jnp.asarray(split.x), jnp.asarray(split.y)


def describe(data: Data) -> DataInfo:
    """What a rule may know of the data before training."""
    y = data.train.y
    # In NumPy, for numbers to look at: a rule may be made where all of JAX's are traced.
    ends = data.transform.standard(np.stack(data.train.ends).astype(np.float32))
    targets = np.issubdtype(y.dtype, np.floating)
    return DataInfo(
        examples=len(data.train),
        x=jax.ShapeDtypeStruct(data.transform.shape, jnp.float32),
        y=jax.ShapeDtypeStruct(y.shape[1:], y.dtype),
        low=float(ends.min()),
        high=float(ends.max()),
        y_low=float(y.min()) if targets else None,
        y_high=float(y.max()) if targets else None,
    )


def stack(trees: list[PyTree]) -> PyTree:
    """One tree with a new first axis from trees of the same structure."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def pick(tree: PyTree, i: int) -> PyTree:
    """The `i`-th of stacked trees."""
    return jax.tree.map(lambda leaf: leaf[i], tree)
