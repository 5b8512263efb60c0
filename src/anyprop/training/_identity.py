"""What a run is known by: texts that tell one rule, network or optimizer from another, in any process."""

import contextlib
import dataclasses
import functools
import hashlib
import inspect
import re
import types
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from .._files import without_nan
from ..contract import Learner
from ..data import Data
from ..nets import ACTIVATIONS, INITIALISERS


def parts(name: str, value: Any) -> dict[str, str]:
    """Every part of `value` as text, by its name: what tells two rules or networks apart, and where they differ.

    Of an array it is the shape: weights are what training changes.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        inside = {f"{name}.{field.name}": getattr(value, field.name) for field in dataclasses.fields(value)}
    elif isinstance(value, Mapping):
        inside = {f"{name}.{key}": item for key, item in value.items()}
    elif isinstance(value, list | tuple):
        inside = {f"{name}[{i}]": item for i, item in enumerate(value)}
    else:
        return {name: eqx.tree_pformat(value) if eqx.is_array(value) else text_of(value)}
    found = {name: type(value).__name__}
    for key, item in inside.items():
        found |= parts(key, item)
    return found


def text_of(value: Any, within: tuple[Any, ...] = ()) -> str:
    """`value` as text that is the same in another process, and of another function another.

    A function that has a name here is that name. Any other is its full name with a sum of its code, its defaults and
    its closure, because all that `jax.nn.initializers` makes are called alike, and so are all lambdas.

    Args:
        value: what to tell from others.
        within: the functions of which it is a part; a recursive one is a part of itself.
    """
    for name, known in (ACTIVATIONS | INITIALISERS).items():
        if value is known:
            return name
    if isinstance(value, types.FunctionType):
        closure = held(value).values()
        name = f"{value.__module__}.{value.__qualname__}"
        inside = [value.__code__, *(value.__defaults__ or ()), value.__kwdefaults__, *closure]
    elif isinstance(value, types.CodeType):
        name, inside = value.co_name, [value.co_code, value.co_names, *value.co_consts]
    elif isinstance(value, functools.partial):
        name, inside = "partial", [value.func, *value.args, *value.keywords, *value.keywords.values()]
    elif hasattr(value, "__wrapped__"):  # by `jax.jit` and its like
        return text_of(value.__wrapped__, within)
    else:
        return re.sub(r" at 0x[0-9a-f]+", "", repr(value))  # the address it happens to have in this process
    if any(value is outer for outer in within):
        return name
    made = repr([text_of(part, (*within, value)) for part in inside])
    return f"{name} {hashlib.sha256(made.encode()).hexdigest()[:8]}"


SURE = 3
"""Updates that are tried as they come: of all those that are tried, the ones that a run is sure to make."""

PATIENT = 1000
"""Steps after which an optimizer that has not moved anything is taken to be one that never does."""


def behaviour(optimizer: optax.GradientTransformation, learner: Learner) -> list[str]:
    """What tells one optimizer from another: how far its first updates go, `SURE` of them, and later ones.

    An Optax optimizer is a pair of functions and cannot be compared or printed, so it is tried. For the later updates
    the counters in its state are set forward: two schedules that begin alike are not the same. As text, because a NaN
    is not equal to itself.

    Raises:
        ValueError: one of the first updates is not finite, or none that was tried goes downhill anywhere, as with a
            rate of zero or below.
    """
    params = learner.params
    gradient = jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.1), params)
    state, distances, downhill = optimizer.init(params), [], False
    for late in [None] * SURE + [2**power for power in range(2, 21)]:
        at = state if late is None else jax.tree.map(functools.partial(_forward, step=late), state)
        updates, after = optimizer.update(gradient, at, params)
        state = after if late is None else state
        distances.append(f"{float(optax.tree.norm(updates)):.5g}")
        downhill = downhill or _descends(updates)
        finite = late is not None or all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(updates))
        if not finite:  # of the later ones, the run may take none
            raise ValueError("optimizer makes an update that is not finite; pass one with a finite learning rate")
    if not (downhill or _descends_yet(optimizer, gradient, state, params)):
        raise ValueError("optimizer moves no parameter downhill; pass one with a learning rate above zero")
    return distances


def _descends(updates: Any) -> bool:
    """Whether any parameter is moved against a gradient that is positive everywhere."""
    return any(bool((leaf < 0).any()) for leaf in jax.tree.leaves(updates))


def _descends_yet(optimizer: optax.GradientTransformation, gradient: Any, state: Any, params: Any) -> bool:
    """Whether it moves any within `PATIENT` steps more, for one that first gathers gradients leaves no other sign."""
    update = jax.jit(optimizer.update)
    for _ in range(PATIENT):
        updates, state = update(gradient, state, params)
        if _descends(updates):
            return True
    return False


def recipe(part: Any, within: tuple[Any, ...] = ()) -> list[str]:
    """The steps of an optimizer and their numbers, such as `scale(step_size=-0.1)`, as far as it tells them.

    Optax names none of them, but its functions hold on to what they were made with. What is read is no guess, and may
    not be all: an optimizer of one's own may keep its numbers elsewhere.

    Args:
        part: the optimizer, or a part of one.
        within: the functions of which it is a part; a recursive one is a part of itself.
    """
    if isinstance(part, optax.GradientTransformation):
        return recipe(part.update, within)
    if isinstance(part, Mapping):
        return [f"{name}: {step}" for name, item in part.items() for step in recipe(item, within)]
    if isinstance(part, list | tuple):
        return [step for item in part for step in recipe(item, within)]
    function = inspect.unwrap(part) if callable(part) else part
    if not isinstance(function, types.FunctionType) or any(function is outer for outer in within):
        return []
    inside = held(function)
    numbers = [f"{name}={value}" for name, value in inside.items() if eqx.is_array_like(value) and np.ndim(value) == 0]
    own = [f"{function.__qualname__.split('.')[0]}({', '.join(numbers)})"] if numbers else []
    return own + recipe(list(inside.values()), (*within, function))


def held(function: types.FunctionType) -> dict[str, Any]:
    """What a function has from around it, by name; not what was never given a value there, as in a branch not taken."""
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):
            found[name] = cell.cell_contents
    return found


def _forward(leaf: Any, step: int) -> Any:
    """`step` in place of a counter, which is what a single integer in an optimizer's state is; others as they are."""
    counter = isinstance(leaf, jax.Array) and leaf.ndim == 0 and jnp.issubdtype(leaf.dtype, jnp.integer)
    return jnp.asarray(step).astype(leaf.dtype) if counter else leaf


TELLING = {
    "data": ("data", "train_size", "validation", "standardise", "augmentation", "reconstruct"),
    "optimizer": ("optimizer", "learning_rate", "momentum", "weight_decay"),
}
"""Of the two whose identity is numbers that say nothing to anybody: what is recorded that may say what differs."""


def _of_data(data: Data) -> dict[str, Any]:
    sizes = {"train_size": len(data.train), "validation": data.validation and len(data.validation)}
    return {"data": data.name, **sizes, "augmentation": data.augmentation}


def told(data: Data, recorded: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What of the data, and of what is recorded beside them, may say what differs, by kind and name."""
    recorded = {**_of_data(data), **recorded}
    return {
        kind: {name: without_nan(recorded[name]) for name in names if name in recorded}
        for kind, names in TELLING.items()
    }


def difference(was: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """The first name with two values, and the two; of two lists as long as each other, only where they differ."""
    for name in dict.fromkeys([*was, *now]):
        before, after = was.get(name), now.get(name)
        if before != after:
            if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
                before, after = next(pair for pair in zip(before, after, strict=True) if pair[0] != pair[1])
            return name, before, after
    return None
