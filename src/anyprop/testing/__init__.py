"""The conformance kit: what every rule must do, as checks that any rule can be put through.

In pytest it takes one line, and gives one test for each check:

    test_my_rule = anyprop.testing.conformance(MyRule())

Without pytest, `check(MyRule(), "loss_falls")` raises an `AssertionError` that says what is wrong, and
`CHECKS` lists the names. Each check guards against a defect that was found in published code of this
field; its docstring says which. All of them run in double precision, so that what should be equal is
equal to many digits.
"""

from ._case import Case, Inapplicable
from ._kit import CHECKS, check, conformance

__all__ = ["CHECKS", "Case", "Inapplicable", "check", "conformance"]
