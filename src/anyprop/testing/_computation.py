"""Checks of computation: a credit is a pure function that every transformation of JAX leaves as it is."""

import equinox as eqx
import jax
from jaxtyping import Array, PyTree

from ._case import Case, compiled, require, require_equal, stack, step


def jit_equals_eager(case: Case) -> None:
    """Compiled and uncompiled credit agree, and the same key gives the same credit.

    Guards against randomness that does not come from the key, and against Python state in a rule.
    """
    learner, batch, key = case.learner(), case.examples(), jax.random.key(1)
    compiled = case.credit(learner, batch, key)
    require_equal(case.credit(learner, batch, key), compiled, "the same key a second time")
    require_equal(case.rule.credit(learner, batch, key=key), compiled, "credit without jit")


def keys_are_used_once(case: Case) -> None:
    """No random key is consumed twice, in `init` or in `credit`.

    Guards against noise that is the same where it should be independent. Two `fold_in` with the same
    number are not seen.
    """
    learner, batch = case.learner(), case.examples()
    key = jax.random.key(1)

    def init(key: Array) -> PyTree:
        return eqx.filter(case.init(learner.model, key, case.rule), eqx.is_array)

    def credit(key: Array) -> PyTree:
        return eqx.filter(case.rule.credit(learner, batch, key=key), eqx.is_array)

    try:
        with jax.debug_key_reuse(True):
            jax.jit(init).lower(key)
            jax.jit(credit).lower(key)
    except jax.errors.KeyReuseError as error:
        raise AssertionError(f"a random key is used twice: {error}") from error


def transforms_equal_loop(case: Case) -> None:
    """Three seeds by `vmap`, three steps each by `scan`, end where each seed ends in a Python loop.

    Guards against rules that mix their seeds, against memory that is lost between steps, and against
    state that only Python can carry.
    """
    learners, batch = [case.learner(seed) for seed in range(3)], case.examples()
    keys = jax.random.split(jax.random.key(1), (3, 3))
    arrays, static = stack(learners)

    def advance(arrays: PyTree, key: Array) -> tuple[PyTree, None]:
        learner = eqx.combine(arrays, static)
        credit = case.rule.credit(learner, batch, key=key)
        return eqx.filter(step(learner, credit), eqx.is_array), None

    together = compiled(jax.vmap(lambda arrays, keys: jax.lax.scan(advance, arrays, keys)[0]))(arrays, keys)
    for seed, learner in enumerate(learners):
        for key in keys[seed]:
            learner = step(learner, case.credit(learner, batch, key))
        own = jax.tree.map(lambda leaf, seed=seed: leaf[seed], together)
        require_equal(own, learner, f"three steps of seed {seed} under vmap and scan")


def one_compilation(case: Case) -> None:
    """A step, another batch of the same shapes and another key do not compile the credit again.

    Guards against training that pays for compilation at every step.
    """
    learner, batch = case.learner(), case.examples()
    credit = case.credit(learner, batch, jax.random.key(1))
    before = case.traces
    case.credit(step(learner, credit), case.examples(1), jax.random.key(2))
    require(case.traces == before, "credit is compiled again for the second step: its learner has changed in form")
