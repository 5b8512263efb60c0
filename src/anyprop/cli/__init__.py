"""The command line, `anyprop --help`: one file a command, flags from typed dataclasses.

    main -> a command's flags -> what they name (`_setup`) -> `fit` or `compare` -> a table and files

Whatever a user can get wrong ends in one line on standard error and exit status 2, before anything is
compiled or written; `ANYPROP_DEBUG=1` shows where it came from.
"""

import functools
import itertools
import operator
import os
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Any

import tyro
from tyro.conf import subcommand

from ..contract import Rule
from ..rules import RULES
from ..training import Diverged
from ._bench import Bench
from ._console import say
from ._data import DataSets
from ._flags import takes_next
from ._reproduce import Reproduce
from ._rules import Rules
from ._train import Compare, Train, with_flags_of
from ._words import in_flags

__all__ = ["main"]

_DESCRIPTION = """Train neural networks by any credit-assignment rule.

Each command has its own help: anyprop COMMAND --help. anyprop --version prints the version. Compiled
programs are kept in the user's cache folder; ANYPROP_CACHE=off keeps none. ANYPROP_DEBUG=1 shows where
an error came from."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments; default: those of the process.

    Returns:
        The exit status: 0 done, 1 training diverged or a check failed, 2 a mistake in the arguments or the
        data, 130 interrupted.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv == ["--version"]:
        print(f"anyprop {version('anyprop')}")
        return 0
    command = None
    try:
        command = tyro.cli(
            _commands(argv),
            prog="anyprop",
            description=_DESCRIPTION,
            args=argv,
            config=(tyro.conf.OmitSubcommandPrefixes,),
        )
        status = command.run(shlex.join(["anyprop", *argv]))
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        say(_how_to_go_on(argv))
        return 130
    except BrokenPipeError:  # `anyprop rules | head`: nobody is reading on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Diverged, ValueError, TypeError, OSError) as error:
        if os.environ.get("ANYPROP_DEBUG"):
            raise
        say(f"error: {in_flags(str(error), command)}")
        return 1 if isinstance(error, Diverged) else 2


def _commands(argv: list[str]) -> Any:
    """The union of all commands; `train` has the flags of the rule that is named."""
    rule = _rule(argv) if argv[:1] == ["train"] else None
    commands = {
        "rules": Rules,
        "train": Train if rule is None else with_flags_of(rule),
        "compare": Compare,
        "data": DataSets,
        "bench": Bench,
        "reproduce": Reproduce,
    }
    named = [Annotated[command, subcommand(name)] for name, command in commands.items()]
    return functools.reduce(operator.or_, named)


def _rule(argv: list[str]) -> type[Rule] | None:
    """The first rule that is named other than as the value of a flag."""
    for before, word in itertools.pairwise(argv):
        if word in RULES and not takes_next(before, RULES[word]):
            return RULES[word]
    return None


def _how_to_go_on(argv: list[str]) -> str:
    if argv[:1] not in (["train"], ["compare"]) and argv[:2] != ["reproduce", "run"]:
        return "interrupted"
    words = [word for word in argv if word not in ("--overwrite", "--resume")]
    return f"interrupted; go on with: {shlex.join(['anyprop', *words, '--resume'])}"
