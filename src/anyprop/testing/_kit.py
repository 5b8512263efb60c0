"""The table of checks, and the two ways to run them."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from .._checks import choose
from ..contract import Rule
from ._case import Batches, Case, Inapplicable, Models, case
from ._computation import jit_equals_eager, keys_are_used_once, one_compilation, transforms_equal_loop
from ._form import bad_input, card, hyperparameters_matter, structure
from ._learning import all_parameters_move, duplication_keeps_the_mean, every_layer_learns, loss_falls

CHECKS: dict[str, Callable[[Case], None]] = {
    function.__name__: function
    for function in (
        card,
        structure,
        hyperparameters_matter,
        bad_input,
        jit_equals_eager,
        keys_are_used_once,
        transforms_equal_loop,
        one_compilation,
        duplication_keeps_the_mean,
        loss_falls,
        every_layer_learns,
        all_parameters_move,
    )
}
"""Every check, by name."""


def check(
    rule: Rule | Case,
    name: str,
    *,
    model: Models | None = None,
    batch: Batches | None = None,
    depths: Sequence[int] | None = None,
) -> None:
    """Put a rule through one check.

    Args:
        rule: the rule; a `Case` keeps what several checks share and takes no further arguments.
        name: one of `CHECKS`.
        model: (key, depth) -> a small network of `depth` layers, for rules that need a special one.
            Default: an mlp with tanh units, or an Elman network for rules that need one.
        batch: (key, model) -> a small batch that the network can learn. Default: one cloud of inputs
            for each class; a model that is no chain needs its own.
        depths: numbers of layers to sweep; default: 1, 2, 4 and 8. Empty for a network of one depth only.

    Raises:
        AssertionError: the rule fails; the message says how.
        Inapplicable: the check has no meaning for this rule; the message says why.
        ValueError: no check has this name.
    """
    function = CHECKS[choose("name", name, CHECKS)]
    subject = rule if isinstance(rule, Case) else case(rule, model=model, batch=batch, depths=depths)
    with jax.enable_x64(True):
        function(subject)


def conformance(
    rule: Rule,
    *,
    model: Models | None = None,
    batch: Batches | None = None,
    depths: Sequence[int] | None = None,
) -> Callable[..., Any]:
    """Make a test for pytest that runs every check of a rule, one case a check.

    Assign it to a name that pytest finds: `test_my_rule = anyprop.testing.conformance(MyRule())`.

    Args:
        rule: the rule.
        model: see `check`.
        batch: see `check`.
        depths: see `check`.
    """
    import pytest  # only whoever tests needs it

    subject = case(rule, model=model, batch=batch, depths=depths)

    @pytest.mark.parametrize("name", CHECKS)
    def test(name: str) -> None:
        try:
            check(subject, name)
        except Inapplicable as reason:
            pytest.skip(str(reason))

    return test
