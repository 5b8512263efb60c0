"""Every registered rule, put through every check of the conformance kit."""

from functools import cache, partial

import jax
import pytest

import anyprop as ap
from anyprop.nets import Chain, Dense
from anyprop.rules import RULES
from anyprop.testing import CHECKS, Inapplicable, check
from anyprop.testing._case import Case, case, small_mlp


def tiny(key, depth):
    """Few enough parameters for a Hessian at every step."""
    return ap.nets.mlp(4, *[3] * (depth - 1), 3, key=key)


def hard_and_sampled(key, depth):
    """Sign units and sigmoid ones by turns, so that hard and sampled layers both occur."""
    net = small_mlp(key, depth)
    names = ["sigmoid" if layer % 2 else "sign" for layer in range(depth - 1)] + ["identity"]
    keys = jax.random.split(key, depth)
    shapes = [stage.weight.shape for stage in net.stages]
    return Chain([Dense(*s, activation=f, key=k) for s, f, k in zip(shapes, names, keys, strict=True)])


SPECIAL = {
    "newton": {"model": tiny},
    "natural-gradient": {"model": tiny},
    "straight-through": {"model": hard_and_sampled, "depths": range(2, 9)},
    "reinforce": {"model": partial(small_mlp, activation="sigmoid")},
    "actor-critic": {"model": partial(small_mlp, activation="sigmoid")},
}
"""What a rule needs besides its defaults to be tested."""


@cache
def subject(name: str) -> Case:
    return case(RULES[name](), **SPECIAL.get(name, {}))


@pytest.mark.parametrize("check_name", CHECKS)
@pytest.mark.parametrize("rule_name", RULES)
def test_conformance(rule_name, check_name):
    try:
        check(subject(rule_name), check_name)
    except Inapplicable as reason:
        pytest.skip(str(reason))
