"""Cost: how fast a rule learns on this machine, what it computes and what memory it takes.

A step here is what training repeats: the credit of one batch and a plain SGD update, compiled as one
program that may overwrite its learner.
"""

import dataclasses
import statistics
import time
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import optax
from jaxtyping import Array, Key, PyTree

from .._checks import count
from ..contract import Batch, Learner, Rule
from ..rules.exact import Backprop

LEARNING_RATE = 1e-6
"""Small, so that many timed steps on one batch leave the numbers, and so the work, as they were."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one training step of a rule costs.

    Args:
        steps_per_second: median over the timed steps.
        flops: floating-point operations of a step by the compiler's own count, which counts the body
            of a loop once; None where the backend does not say.
        bytes: memory of a step in bytes, arguments, results and temporaries together, without what
            results share with arguments; None where the backend does not say.
    """

    steps_per_second: float
    flops: float | None
    bytes: int | None


def cost(rule: Rule, learner: Learner, batch: Batch, *, key: Key[Array, ""], repeats: int = 30) -> Cost:
    """Measure what one training step of a rule costs.

    Timings of two rules compare only if they are taken in turn, which `bench` does.

    Args:
        rule: the rule.
        learner: what it trains; it is left as it is.
        batch: examples.
        key: random key for the rule.
        repeats: number of timed steps.

    Raises:
        ValueError: `repeats` is not a positive integer.
    """
    count("repeats", repeats)
    step = _Step(rule, learner, batch, key)
    return step.cost([step.seconds() for _ in range(repeats)])


def bench(
    contestants: Mapping[str, tuple[Rule, Learner]], batch: Batch, *, key: Key[Array, ""], rounds: int = 30
) -> dict[str, dict[str, float | int | None]]:
    """Compare the cost of rules: every round times one step of each, so that a busy machine is fair to all.

    Args:
        contestants: rules and the learners they train, by name.
        batch: examples.
        key: random key for the rules.
        rounds: number of rounds.

    Returns:
        By name: `steps_per_second` (median over rounds), `ratio_to_backprop` (its rate over backprop's,
        median over rounds: 0.5 is half as fast; None if no contestant is a `Backprop`),
        `flops` and `bytes` as in `Cost`.

    Raises:
        ValueError: `rounds` is not a positive integer.
    """
    count("rounds", rounds)
    steps = {name: _Step(rule, learner, batch, key) for name, (rule, learner) in contestants.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            seconds[name].append(step.seconds())
    baseline = next((seconds[name] for name, (rule, _) in contestants.items() if isinstance(rule, Backprop)), None)
    return {
        name: {
            **dataclasses.asdict(step.cost(seconds[name])),
            "ratio_to_backprop": None
            if baseline is None
            else statistics.median(base / own for own, base in zip(seconds[name], baseline, strict=True)),
        }
        for name, step in steps.items()
    }


class _Step:
    """One compiled training step, and the learner that it moves."""

    def __init__(self, rule: Rule, learner: Learner, batch: Batch, key: Key[Array, ""]):
        optimizer = optax.sgd(LEARNING_RATE)
        arrays, static = eqx.partition(learner, eqx.is_array)

        def step(arrays: PyTree, state: PyTree, batch: Batch, key: Array) -> tuple[PyTree, PyTree]:
            learner = eqx.combine(arrays, static)
            credit = rule.credit(learner, batch, key=key)
            updates, state = optimizer.update(credit.grads, state, learner.params)
            return eqx.filter(learner.apply(updates, credit.memory), eqx.is_array), state

        # The step overwrites its learner, so it gets a copy of the caller's.
        self.moving = jax.tree.map(lambda leaf: leaf.copy(), arrays), optimizer.init(learner.params)
        self.fixed = batch, key
        self.program = jax.jit(step, donate_argnums=(0, 1)).lower(*self.moving, *self.fixed).compile()
        self.seconds()  # the first call also pays for loading

    def seconds(self) -> float:
        """Take one step and return how long it took."""
        start = time.perf_counter()
        self.moving = jax.block_until_ready(self.program(*self.moving, *self.fixed))
        return time.perf_counter() - start

    def cost(self, seconds: list[float]) -> Cost:
        """Return the cost of steps that took so long."""
        return Cost(1 / statistics.median(seconds), _flops(self.program), _bytes(self.program))


def _flops(program: Any) -> float | None:
    try:
        analysis: Any = program.cost_analysis()
    except (NotImplementedError, jax.errors.JaxRuntimeError):
        return None
    if isinstance(analysis, list):  # one for each computation, in earlier versions
        analysis = analysis[0] if analysis else None
    return None if analysis is None else analysis.get("flops")


def _bytes(program: Any) -> int | None:
    try:
        analysis = program.memory_analysis()
    except (NotImplementedError, jax.errors.JaxRuntimeError):
        return None
    if analysis is None:
        return None
    used = analysis.argument_size_in_bytes + analysis.output_size_in_bytes + analysis.temp_size_in_bytes
    return used - analysis.alias_size_in_bytes
