"""Checks of form: documentation, hyper-parameters, structure of the result, refusal of bad input."""

import dataclasses
import functools
import inspect
import itertools
import math
import re
import types
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..contract import Card, Credit, Learner, Needs, Rule
from ..losses import LOSSES, Loss
from ..nets import ACTIVATIONS, INITIALISERS
from ._case import QUICK, Case, numbers, require, step


def card(case: Case) -> None:
    """The card is complete, and every hyper-parameter is documented.

    Guards against options that only the source tells of, and against results that nobody can trace to a
    paper.
    """
    rule = type(case.rule)
    card = getattr(rule, "card", None)
    if not isinstance(card, Card):
        raise AssertionError(f"{rule.__name__} has no card; give it a class attribute card = Card(...)")
    for name in ("name", "family", "limit"):
        value = getattr(card, name)
        require(isinstance(value, str) and value.strip(), f"card.{name} must be a non-empty string, not {value!r}")
    require(isinstance(card.needs, Needs), f"card.needs must be a Needs, not {card.needs!r}")
    for name in ("source", "dossier"):
        value = getattr(card, name)
        require(
            isinstance(value, tuple) and all(isinstance(entry, str) and entry for entry in value),
            f"card.{name} must be a tuple of strings, not {value!r}",
        )
    require(card.source, "card.source must name the BibTeX key of the method's paper")
    for name in ("local", "weight_transport", "derivatives"):
        require(isinstance(getattr(card, name), bool), f"card.{name} must be True or False")
    require(isinstance(card.phases, int) and card.phases >= 1, f"card.phases must be at least 1, not {card.phases!r}")
    doc = rule.__doc__ or ""
    require("References:" in doc, f"the docstring of {rule.__name__} has no section 'References:'")
    documented = arguments(rule)
    for field in _fields(case.rule):
        require(field.name in documented, f"the docstring of {rule.__name__} does not document {field.name}")


def structure(case: Case) -> None:
    """Gradients and memory keep structure, shapes and types; the loss is that of the output; all is finite.

    Guards against a state that changes its type after the first step, and against a reported loss that
    belongs to another prediction than the reported one.
    """
    learner, batch = case.learner(), case.examples()
    credit = case.credit(learner, batch, jax.random.key(1))
    for what, got, expected in (
        ("grads", credit.grads, learner.params),
        ("memory", credit.memory, eqx.filter(learner.memory, eqx.is_array)),
    ):
        got, expected = (jax.tree.map(_form, tree) for tree in (got, expected))
        require(got == expected, f"{what} must be laid out as {expected}, not as {got}")
    for path, leaf in jax.tree_util.tree_flatten_with_path((credit.grads, credit.loss, credit.output))[0]:
        require(np.all(np.isfinite(leaf)), f"credit has a number that is not finite at {jax.tree_util.keystr(path)}")
    require(credit.loss.shape == (), f"loss must be one number, not of shape {credit.loss.shape}")
    expected = jnp.mean(case.rule.loss(credit.output, batch.y))
    require(
        np.allclose(credit.loss, expected, rtol=1e-9),
        f"loss is {credit.loss}, but the mean cost of credit.output is {expected}",
    )
    require(
        jax.tree.structure(step(learner, credit)) == jax.tree.structure(learner),
        "an optimizer step must keep the structure of the learner",
    )


def hyperparameters_matter(case: Case) -> None:
    """Every hyper-parameter changes what the rule does.

    Guards against documented options that are never read. An option may act in one mode only: it is also
    tried with each other choice of the switches beside it.
    """
    switches = [
        {field.name: value}
        for field in _fields(case.rule)
        if _is_switch(field, type(case.rule))
        for value in _others(field, type(case.rule), getattr(case.rule, field.name))
    ]
    # Every variant is a program of its own: the smaller net first, and where that shows nothing, the larger one.
    depths = (2, 3) if 2 in case.depths else (3,)
    for field in _fields(case.rule):
        if field.name == "loss" and case.rule.card.needs is Needs.BOLTZMANN:
            continue  # what is descended is a likelihood, and the loss only reported
        contexts = [{}, *(switch for switch in switches if field.name not in switch)]
        require(
            any(_matters(case, field, context, depth) for depth in depths for context in contexts),
            f"{field.name} changes nothing: two steps are the same to the last digit with another value",
        )


def bad_input(case: Case) -> None:
    """Models of the wrong kind, NaN and numbers out of range are refused, by an error that names the argument.

    Guards against failures deep inside a compiled program, and against runs that go on with nonsense.
    """
    rule, key = case.rule, jax.random.key(0)
    models = {"a string": "model", "a function without parameters": lambda x: x}
    for what, model in models.items():
        error = _refusal(lambda model=model: rule.init(model, key=key))
        require(isinstance(error, TypeError), f"init must refuse {what} with a TypeError, not with {error!r}")
    documented = arguments(type(rule))
    for field in _fields(rule):
        value = getattr(rule, field.name)
        if isinstance(value, bool):
            continue
        if isinstance(value, float | int):
            about = documented.get(field.name, "")
            bad = [math.nan] if isinstance(value, float) else []
            bad += [] if "negative" in about or "either sign" in about else [type(value)(-1)]
        else:
            bad = ["no such name"] if isinstance(value, str | Loss) else []
        for nonsense in bad:
            error = _refusal(lambda name=field.name, nonsense=nonsense: _variant(rule, {name: nonsense}))
            require(
                # Where annotations are checked at run time, the checker may come first, with a TypeError.
                isinstance(error, ValueError | TypeError) and field.name in str(error),
                f"{field.name}={nonsense!r} must be refused by a ValueError that names it, not by {error!r}",
            )


def arguments(kind: type) -> dict[str, str]:
    """The entries of the section `Args:` of a class's docstring, by name."""
    section = re.search(r"^Args:\n((?:[ ]+.*\n?|\n)*)", inspect.cleandoc(kind.__doc__ or ""), re.MULTILINE)
    entries = (
        re.findall(r"^ {4}(\w+)[^:\n]*:((?:.*\n?)(?:(?: {8}.*)?\n?)*)", section[1], re.MULTILINE) if section else []
    )
    return dict(entries)


def _fields(rule: Rule) -> list[dataclasses.Field]:
    return [field for field in dataclasses.fields(rule) if field.init]


def _form(leaf: Any) -> tuple[Any, ...]:
    return leaf.shape, leaf.dtype


def _variant(rule: Rule, changes: dict[str, Any]) -> Rule:
    values = {field.name: getattr(rule, field.name) for field in _fields(rule)}
    return type(rule)(**{**values, **changes})


def _refusal(call: Any) -> Exception | None:
    try:
        call()
    except Exception as error:
        return error
    return None


def _choices(field: dataclasses.Field, kind: type) -> tuple[Any, ...]:
    """The names that it may have; instead of one it may take an object, too."""
    hint = get_type_hints(kind)[field.name]
    kinds = get_args(hint) if isinstance(hint, types.UnionType) or get_origin(hint) is Union else (hint,)
    return tuple(name for one in kinds if get_origin(one) is Literal for name in get_args(one))


def _is_switch(field: dataclasses.Field, kind: type) -> bool:
    return bool(_choices(field, kind)) or isinstance(field.default, bool)


def _others(field: dataclasses.Field, kind: type, value: Any) -> Iterator[Any]:
    """Other values that a hyper-parameter may have, the likeliest first."""
    if choices := _choices(field, kind):
        candidates: tuple[Any, ...] = choices
    elif isinstance(value, bool):
        candidates = (not value,)
    elif isinstance(value, int):
        candidates = (value + 1, value + 2, value - 1)
    elif isinstance(value, float):
        candidates = (2 * value, value / 2, 0.5, 0.1)
    elif isinstance(value, Loss):
        candidates = tuple(loss() for loss in LOSSES.values() if not isinstance(value, loss))
    elif isinstance(value, str):
        candidates = (*INITIALISERS, *ACTIVATIONS)
    else:
        candidates = (1, 0.5, True)
    yield from (candidate for candidate in candidates if candidate != value)


def _matters(case: Case, field: dataclasses.Field, context: dict[str, Any], depth: int) -> bool:
    try:
        rule = _variant(case.rule, context)
        before = _program(case, rule, depth)
    except (TypeError, ValueError):
        return False  # the switch does not go with the other settings, or with this network
    for value in _others(field, type(rule), getattr(rule, field.name)):
        try:
            other = _variant(rule, {field.name: value})
            after = _program(case, other, depth)
        except (TypeError, ValueError):
            continue
        if before[:2] == after[:2]:  # nothing to compile
            return False
        steps = itertools.zip_longest(_two_steps(case, rule, depth), _two_steps(case, other, depth))
        return any(not _identical(a, b) for a, b in steps)
    return False


KEPT = 8
"""Variants of a rule whose programs stay in memory: those that the next argument is likely to be tried against."""


class _Program(NamedTuple):
    """What `credit` does to a fresh learner.

    Args:
        text: the program, as JAX prints it.
        constants: the numbers of the learner, and the program's own.
        learner: the fresh learner.
        traced: the program, from (arrays of the learner, key) to the arrays of the credit.
        static: what of the credit is no array.
    """

    text: str
    constants: list[bytes]
    learner: Learner
    traced: jax.stages.Traced
    static: Credit


@functools.lru_cache(maxsize=KEPT)
def _program(case: Case, rule: Rule, depth: int) -> _Program:
    learner, batch = case.learner(rule=rule, depth=depth), case.examples()
    arrays, rest = eqx.partition(learner, eqx.is_array)
    static = []

    def credit(arrays: PyTree, key: Array) -> PyTree:
        found, fixed = eqx.partition(rule.credit(eqx.combine(arrays, rest), batch, key=key), eqx.is_array)
        static.append(fixed)
        return found

    traced = jax.jit(credit).trace(arrays, jax.random.key(1))
    constants = [*jax.tree.leaves(arrays), *traced.jaxpr.consts]
    # An array written out in a rule's code, `jnp.array([1.0, -1.0])`, may stand in the program as one of NumPy's.
    values = [numbers(jnp.asarray(leaf)).tobytes() for leaf in constants]
    return _Program(str(traced.jaxpr), values, learner, traced, static[0])


@functools.lru_cache(maxsize=KEPT)
def _two_steps(case: Case, rule: Rule, depth: int) -> list[np.ndarray]:
    """All numbers of a fresh learner and of its first two steps; the second one sees what memory is for."""
    program = _program(case, rule, depth)
    credit = program.traced.lower().compile(compiler_options=QUICK)
    learner = program.learner
    seen: list[Any] = [learner]
    for key in jax.random.split(jax.random.key(1)):
        found = eqx.combine(credit(eqx.filter(learner, eqx.is_array), key), program.static)
        learner = step(learner, found)
        seen += [found.grads, found.memory, found.metrics]
    return [numbers(leaf) for leaf in jax.tree.leaves(eqx.filter(seen, eqx.is_array))]


def _identical(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    return a is not None and b is not None and a.shape == b.shape and np.array_equal(a, b)
