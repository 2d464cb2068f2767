"""The console: everything for people goes to stderr, so that stdout stays free for results.

Knows nothing of stages; they say what they decided and advance a bar.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress, TaskID

_logs: list[IO[str]] = []


@cache
def console() -> Console:
    """The one rich console of the process."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def say(text: RenderableType) -> None:
    """One line (or renderable) for people, copied to the log of the run at work."""
    console().print(text)
    for log in _logs:
        from rich.console import Console

        Console(file=log, width=120, highlight=False).print(text)
        log.flush()


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Copies everything said inside the block to the end of a file."""
    with path.open("a", encoding="utf-8") as log:
        _logs.append(log)
        try:
            yield
        finally:
            _logs.remove(log)


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
def progress(description: str, total: float | None, completed: float = 0) -> Iterator[Bar]:
    """A live bar on a terminal; in a log file or pipe a line at the end only."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:<22}"), BarColumn(bar_width=30), MofNCompleteColumn(), TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(), TextColumn("<"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console(), transient=False, refresh_per_second=4) as live:
        yield Bar(live, live.add_task(description, total=total, completed=completed, note=""))
