"""Where the commands print: tables to standard output, everything else to standard error."""

import sys

from rich.console import Console

_UNBROKEN = 1000  # columns when nobody's screen limits them, so that a pipe gets one line a row


def stdout() -> Console:
    """The console for results."""
    return Console() if sys.stdout.isatty() else Console(width=_UNBROKEN)


def say(text: str) -> None:
    """Print a line of plain text to standard error."""
    Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)
