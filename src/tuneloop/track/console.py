"""The console: everything for people goes to stderr, so that stdout stays free for results.

Knows nothing of stages; they say what they decided and advance a bar.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress, TaskID

LOG_WIDTH = 120
_logs: list[IO[str]] = []


@cache
def console() -> Console:
    """The one rich console of the process. In a pipe it is wide: nobody's window wraps there, and tables stay whole."""
    from rich.console import Console

    found = Console(stderr=True, highlight=False)
    if not found.is_terminal and "COLUMNS" not in os.environ:
        found.width = LOG_WIDTH
    return found


def say(text: RenderableType) -> None:
    """One line (or renderable) for people, copied to the log of the run at work. A str may hold rich markup.

    Lines are left to the terminal to wrap, so that paths in them can be copied.
    """
    from rich.console import Console
    from rich.text import Text

    plain = isinstance(text, (str, Text))
    console().print(text, soft_wrap=plain)
    for log in _logs:
        Console(file=log, width=LOG_WIDTH, highlight=False).print(text, soft_wrap=plain)
        log.flush()


def decided(label: str, text: str) -> None:
    """One fact or decision with its label in bold; `text` is taken as it is."""
    from rich.text import Text

    say(Text.assemble((f"{label:<12}", "bold"), text))


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Copies everything said inside the block to the end of a file."""
    with path.open("a", encoding="utf-8") as log:
        _logs.append(log)
        try:
            yield
        finally:
            _logs.remove(log)


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Shows on a terminal that something is under way whose length is not known; nothing in a pipe."""
    from rich.markup import escape

    with console().status(f"[dim]{escape(text)} …[/]"):
        yield


@dataclass
class Bar:
    """One progress bar; `advance` may carry a short note such as the current loss."""

    progress: Progress
    task: TaskID

    def advance(self, amount: float = 1, note: str | None = None) -> None:
        update: dict[str, Any] = {"advance": amount}
        if note is not None:
            update["note"] = note
        self.progress.update(self.task, **update)


@contextmanager
def progress(description: str, total: float | None, completed: int = 0) -> Iterator[Bar]:
    """A live bar on a terminal; in a log file or pipe a line at the end only. Without a total it only counts."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    note = TextColumn("{task.fields[note]}")
    if total is None:
        counts = [TextColumn("{task.completed:,.0f}"), note, TimeElapsedColumn()]
    else:
        counts = [TextColumn("{task.completed:,.0f}/{task.total:,.0f}"), note, TimeElapsedColumn(), TextColumn("<"),
                  TimeRemainingColumn()]  # fmt: skip
    columns = (TextColumn("{task.description:<22}", markup=False), BarColumn(bar_width=30), *counts)
    with Progress(*columns, console=console(), transient=False, refresh_per_second=4) as live:
        yield Bar(live, live.add_task(description, total=total, completed=completed, note=""))
