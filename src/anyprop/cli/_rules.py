"""`anyprop rules`."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from tyro.conf import arg

from .._files import write_json
from ..contract import Card
from ..rules import RULES
from ._console import stdout
from ._setup import check_json

_WIDE = 200  # columns from which on there is room for every property


@dataclasses.dataclass
class Rules:
    """List the rules: what each needs, and where it comes from.

    Args:
        json: write the list to this file, too.
    """

    json: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="(default: none)")] = None

    def run(self, line: str) -> int:
        """Print the table."""
        del line
        check_json(self.json)
        if self.json is not None:
            write_json(self.json, [_record(name, rule.card) for name, rule in RULES.items()])
        console = stdout()
        console.print(_table(wide=console.width >= _WIDE))
        return 0


def _record(name: str, card: Card) -> dict[str, Any]:
    return {**dataclasses.asdict(card), "name": name, "title": card.name, "needs": str(card.needs)}


def _table(wide: bool) -> Table:
    table = Table(box=SIMPLE_HEAD)
    table.add_column("rule", no_wrap=True)
    for heading in ("family", "needs", "source", "dossier"):
        table.add_column(heading)
    if wide:
        for heading in ("local", "weight transport", "derivatives", "passes", "exact limit"):
            table.add_column(heading)
    for name, rule in RULES.items():
        card = rule.card
        row = [name, card.family, str(card.needs), ", ".join(card.source), ", ".join(card.dossier)]
        if wide:
            facts = (card.local, card.weight_transport, card.derivatives)
            row += [*("yes" if fact else "no" for fact in facts), str(card.phases), card.limit]
        table.add_row(*row)
    return table
