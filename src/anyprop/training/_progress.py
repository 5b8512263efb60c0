"""The live display of a run: a bar a rule, with the error so far and the time left."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

Advance = Callable[[int, list[dict[str, Any]]], None]


class Progress:
    """Progress bars on the terminal; share one among several runs to keep their bars together.

    Args:
        console: where to draw; default: standard error, so that standard output stays clean.
        show: draw at all.
    """

    def __init__(self, console: Console | None = None, *, show: bool = True):
        self._bars = Bars(
            TextColumn("{task.description:<28}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console or Console(stderr=True),
            disable=not show,
        )
        self._open = 0

    @contextlib.contextmanager
    def task(self, name: str, epochs: int, *, done: int = 0) -> Iterator[Advance]:
        """Show a bar for one run; yields the function to call after every epoch."""
        with self:
            bar = self._bars.add_task(name, total=epochs, completed=done, note="compiling")

            def advance(epoch: int, records: list[dict[str, Any]]) -> None:
                self._bars.update(bar, completed=epoch, note=_note(records))

            yield advance

    def __enter__(self) -> "Progress":
        if not self._open:
            self._bars.start()
        self._open += 1
        return self

    def __exit__(self, *error: object) -> None:
        self._open -= 1
        if not self._open:
            self._bars.stop()


def _note(records: list[dict[str, Any]]) -> str:
    """The mean over seeds of the most telling score there is."""
    for score in (f"{split}_{kind}" for kind in ("error", "loss") for split in ("validation", "test", "train")):
        values = [record[score] for record in records if record.get(score) is not None]
        if values:
            mean = sum(values) / len(values)
            shown = f"{100 * mean:.2f} %" if score.endswith("error") else f"{mean:.4g}"
            return f"{score.replace('_', ' ')} {shown}"
    return ""
