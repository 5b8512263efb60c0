"""`anyprop reproduce list` and `run`."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from tyro.conf import FlagCreatePairsOff, Positional, arg, subcommand

from .._checks import choose, count
from .._files import writable_folder, write_json
from ..reproductions import REPRODUCTIONS, Options, explanation, outcome
from ._cache import cache_compilations
from ._console import say, stdout


@dataclasses.dataclass
class List:
    """List the reproductions, and how long each takes at full size."""

    def run(self) -> int:
        """Print the table."""
        table = Table(box=SIMPLE_HEAD)
        table.add_column("reproduction", no_wrap=True)
        table.add_column("what it shows")
        table.add_column("source")
        table.add_column("takes, on 2 cores", justify="right", no_wrap=True)
        for name, reproduction in REPRODUCTIONS.items():
            table.add_row(name, reproduction.title, ", ".join(reproduction.source), reproduction.duration)
        stdout().print(table)
        return 0


@dataclasses.dataclass
class Run:
    """Run a reproduction, and put the paper's numbers beside ours.

    Args:
        name: name of the reproduction.
        out: folder for result.json and the checkpoints.
        epochs: passes over the training examples.
        seeds: how many seeds.
        resume: go on with what lies in the folder.
    """

    name: Annotated[Positional[str], arg(metavar="NAME")]
    out: Annotated[Path | None, arg(metavar="FOLDER", help_behavior_hint="(default: runs/NAME)")] = None
    epochs: Annotated[int | None, arg(metavar="N", help_behavior_hint="(default: the paper's)")] = None
    seeds: Annotated[int | None, arg(metavar="N", help_behavior_hint="(default: the reproduction's)")] = None
    resume: FlagCreatePairsOff[bool] = False

    def run(self) -> int:
        """Run it, write result.json and print the table."""
        reproduction = REPRODUCTIONS[choose("reproduction", self.name, REPRODUCTIONS)]
        for name, value in (("epochs", self.epochs), ("seeds", self.seeds)):
            if value is not None:
                count(name, value)
        out = self.out or Path("runs") / self.name
        if out.is_dir() and any(out.iterdir()) and not self.resume:
            raise ValueError(f"{out} is not empty; pass --resume to go on with what lies in it, or another --out")
        writable_folder("out", out)
        cache_compilations()
        result = outcome(reproduction, Options(out, self.epochs, self.seeds, self.resume))
        write_json(out / "result.json", result)
        stdout().print(_table(result["claims"]))
        if why := explanation(reproduction, result):
            stdout().print(why)
        say(f"result: {out / 'result.json'}")
        return 0


def _table(claims: list[dict[str, Any]]) -> Table:
    table = Table(box=SIMPLE_HEAD, caption="Mean ± standard deviation over seeds.", caption_justify="left")
    table.add_column("measured")
    for heading in ("paper", "ours", "seeds", "tolerance"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("reproduced")
    table.add_column("the paper's number is from")
    for claim in claims:
        spread = "" if claim["sd"] is None else f" ± {claim['sd']:.2g}"
        table.add_row(
            claim["what"],
            f"{'at most ' if claim['at_most'] else ''}{claim['value']:g} {claim['unit']}",
            f"{claim['measured']:.4g}{spread} {claim['unit']}",
            str(claim["seeds"]),
            f"{claim['tolerance']:g} {claim['unit']}",
            "yes" if claim["reproduced"] else "no",
            claim["evidence"],
        )
    return table


@dataclasses.dataclass
class Reproduce:
    """Run the experiments of papers."""

    action: Annotated[List, subcommand("list")] | Annotated[Run, subcommand("run")]

    def run(self, line: str) -> int:
        """Run the action."""
        del line
        return self.action.run()
