"""What rules share that infer hidden activities from both sides: from the layer below and from the one above.

Layer l has a way up, f_l, and a way down, g_l. Every way is the mean of a Gaussian of unit variance, and what
the loss measures is -log p of what it is measured on. Log-likelihoods leave out the Gaussians' constants.

    d log p(h_{l-1} | h_l) / dh_l  ~  f_l(h_{l-1}) - f_l(g_l(h_l)),   exact where f_l and g_l are linear and
                                                                      each other's transposes
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from ._layerwise import Activity

Way = Callable[[Activity], Activity]
State = TypeVar("State", bound=PyTree)


def log_normal(h: Activity, mean: Activity) -> Float[Array, " batch"]:
    """Of each example, log N(h; mean, I) up to a constant: -||h - mean||^2 / 2."""
    return -0.5 * jnp.sum((h - mean) ** 2, axis=tuple(range(1, h.ndim)))


def from_below(f: Way, g: Way, below: Activity, here: Activity) -> Activity:
    """f_l(h_{l-1}) - f_l(g_l(h_l)): where h_l has to go to explain the layer below."""
    return f(below) - f(g(here))


def settle(
    step: Callable[[State], State], joint: Callable[[State], Float[Array, " batch"]], state: State, iterations: int
) -> tuple[State, Float[Array, " states"]]:
    """Repeat a step.

    Args:
        step: moves the activities once.
        joint: log-likelihood of each example with such activities.
        state: the activities to start from, and whatever else a step changes.
        iterations: N, how many steps.

    Returns:
        The last state, and the batch's mean log-likelihood before each step and after the last, N + 1 values.
    """

    def advance(state: State, _: None) -> tuple[State, Array]:
        return step(state), jnp.mean(joint(state))

    state, trace = jax.lax.scan(advance, state, length=iterations)
    return state, jnp.append(trace, jnp.mean(joint(state)))


def ends(trace: Float[Array, " states"]) -> dict[str, Array]:
    """What a rule tells about an inference: its whole course, and how it began and ended."""
    return {"joint": trace, "joint_first": trace[0], "joint_last": trace[-1]}


def corrupt(h: Sequence[Activity], noise: float, key: Key[Array, ""]) -> list[Activity]:
    """Every h_l with Gaussian noise of its own."""
    keys = jax.random.split(key, len(h))
    return [each + noise * jax.random.normal(k, each.shape, each.dtype) for each, k in zip(h, keys, strict=True)]


def delta_rule(ways: Sequence[Way], inputs: Sequence[Activity], aims: Sequence[Activity]) -> Float[Array, ""]:
    """-sum_l log N(aim_l; way_l(input_l)), the batch's mean: its gradient is the delta rule of every way."""
    costs = (-log_normal(aim, way(h)) for way, h, aim in zip(ways, inputs, aims, strict=True))
    return sum((jnp.mean(cost) for cost in costs), start=jnp.zeros(()))
