"""`anyprop data list`, `fetch`, `verify` and `where`."""

import dataclasses
from typing import Annotated

from rich.box import SIMPLE_HEAD
from rich.table import Table
from tyro.conf import Positional, arg, subcommand

from .. import data
from ._console import say, stdout


def _table(*headings: str) -> Table:
    table = Table(box=SIMPLE_HEAD)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


@dataclasses.dataclass
class List:
    """List the data sets known by name, and which of them are on this machine."""

    def run(self) -> int:
        """Print the table."""
        table = _table("data set", "shape", "classes", "examples", "licence", "status")
        for row in data.available():
            shape = " x ".join(map(str, row.shape))
            table.add_row(row.name, shape, str(row.classes), f"{row.examples:,}", row.licence, row.status)
        stdout().print(table)
        return 0


@dataclasses.dataclass
class Fetch:
    """Download a data set into the cache, unless it is on this machine already.

    Args:
        name: name of the data set.
    """

    name: Annotated[Positional[str], arg(metavar="NAME")]

    def run(self) -> int:
        """Print the files."""
        for path in data.fetch(self.name):
            print(path)
        return 0


@dataclasses.dataclass
class Verify:
    """Check the files of a data set against their published checksums.

    Args:
        name: name of the data set.
    """

    name: Annotated[Positional[str], arg(metavar="NAME")]

    def run(self) -> int:
        """Print a line a file; the exit status is 1 unless there are files and all of them are whole."""
        reports = data.verify(self.name)
        for report in reports:
            print(f"{'ok' if report.ok else 'BAD':4}{report.file}{'' if report.ok else f': {report.problem}'}")
        if not reports:
            say(f"{self.name} is not on this machine; anyprop data fetch {self.name} downloads it")
        return 0 if reports and all(report.ok for report in reports) else 1


@dataclasses.dataclass
class Where:
    """Show where the files of a data set are looked for, in order, and which are there.

    Args:
        name: name of the data set.
    """

    name: Annotated[Positional[str], arg(metavar="NAME")]

    def run(self) -> int:
        """Print a line a path."""
        for place in data.where(self.name):
            print(f"{'found' if place.found else '-':6}{place.path}")
        return 0


@dataclasses.dataclass
class DataSets:
    """List, download and check data sets."""

    action: (
        Annotated[List, subcommand("list")]
        | Annotated[Fetch, subcommand("fetch")]
        | Annotated[Verify, subcommand("verify")]
        | Annotated[Where, subcommand("where")]
    )

    def run(self, line: str) -> int:
        """Run the action."""
        del line
        return self.action.run()
