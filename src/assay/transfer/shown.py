"""How a transfer goes, for whoever started it: bars on a terminal, elsewhere a line for each thing done."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from assay.transfer.run import Check


class _Speed(ProgressColumn):
    """Rows per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed else "")


class Shown:
    """A `Show` that writes to a console. Used as a context."""

    def __init__(self, console: Console) -> None:
        self._console = console
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Speed())
        self._bars = Progress(
            *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal
        )
        self._bar: TaskID | None = None
        self._what = ""
        self._total: int | None = None
        self._rows = 0
        self._began = 0.0

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._end()
        self._bars.stop()

    def working(self, what: str, total: int | None, done: int = 0) -> None:
        """See `Show`."""
        self._end()
        self._what, self._total, self._rows, self._began = what, total, 0, time.monotonic()
        self._bar = self._bars.add_task(what, total=total, completed=done)

    def advanced(self, rows: int) -> None:
        """See `Show`."""
        self._rows += rows
        if self._bar is not None:
            self._bars.advance(self._bar, rows)

    def said(self, sentence: str) -> None:
        """See `Show`."""
        self._print(sentence)

    def checked(self, checks: list[Check]) -> None:
        """See `Show`."""
        self._end()
        table = Table("checked", "data directory", "PostgreSQL", "")
        for check in checks:
            verdict = "differs" if check.differs else "same"
            table.add_row(*map(Text, (check.name, check.source, check.target, verdict)))
        self._console.print(table)

    def _end(self) -> None:
        """What was under way is done."""
        if not self._what:
            return
        seconds = max(time.monotonic() - self._began, 0.001)
        if self._bar is not None:
            total = self._total or self._rows or 1
            self._bars.update(self._bar, total=total, completed=total)
        if not self._console.is_terminal:
            rows = f" {self._rows:,} rows," if self._rows else ""
            speed = f" ({self._rows / seconds:,.0f}/s)" if self._rows else ""
            self._print(f"{self._what}:{rows} {seconds:.1f} s{speed}")
        self._what = ""

    def _print(self, sentence: str) -> None:
        self._console.print(sentence, markup=False, highlight=False, soft_wrap=True)
