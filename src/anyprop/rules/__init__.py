"""The credit-assignment rules, one class a file, and how to find them by name."""

import re

from .._checks import choose
from ..contract import Rule
from . import auxiliary, equilibrium, exact, feedback, perturbation, targets

FAMILIES = (exact, perturbation, feedback, targets, auxiliary, equilibrium)

RULES: dict[str, type[Rule]] = {
    re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower(): getattr(family, name)
    for family in FAMILIES
    for name in family.__all__
    if isinstance(getattr(family, name), type) and issubclass(getattr(family, name), Rule)  # a family may have more
}
"""Every rule, by its name on the command line: the class name in kebab case."""


def find(name: str) -> type[Rule]:
    """Return the rule class called `name`, such as `"kolen-pollack"`.

    Raises:
        ValueError: no rule has this name; the message names the nearest ones.
    """
    return RULES[choose("rule", name, RULES)]


def name_of(rule: Rule | type[Rule]) -> str:
    """Return the command-line name of a rule or rule class: its class name in kebab case."""
    kind = rule if isinstance(rule, type) else type(rule)
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", kind.__name__).lower()


__all__ = ["FAMILIES", "RULES", "find", "name_of"]
