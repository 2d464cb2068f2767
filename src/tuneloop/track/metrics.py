"""metrics.jsonl, one line a step, mirrored to trackers and a page. On resume, lines after the checkpoint go."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from tuneloop.core import jsonl
from tuneloop.core.errors import DataError
from tuneloop.pages import training
from tuneloop.track.trackers import Story, Tracker

NOT_PLOTTED = {"step", "epoch"}
MEASURED = {"seconds", "tokens_per_second", "supervised_tokens_per_second", "computed_tokens", "mfu", "memory_gib"}
"""Columns that say how it was computed and how fast: all others are the same when the same run is computed again."""
PAGE = "curves.html"
PAGE_EVERY = 5.0  # seconds, or more where drawing takes long
PAGE_SHARE = 0.02  # of the time at most goes into the page


@dataclass(frozen=True)
class Tracking:
    """Who else gets the numbers, and what they are told of the run."""

    to: Sequence[Tracker] = ()
    project: str = "run"
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])


class Metrics:
    """Writer of a run's curves. `resume_from` keeps the lines up to that step, so no gap and no repeat remains."""

    def __init__(self, folder: Path, resume_from: int = 0, tracking: Tracking | None = None) -> None:
        self.folder, self.path = folder, folder / "metrics.jsonl"
        self._rows = [row for row in read(self.path) if row["step"] <= resume_from] if self.path.exists() else []
        jsonl.write_lines(self.path, self._rows)
        self._file: IO[bytes] = self.path.open("ab")
        tracking = tracking or Tracking()
        story = Story(folder, tracking.project, tracking.settings, resume_from)
        self._sinks = [tracker.open(story) for tracker in tracking.to]
        self._page_due = 0.0

    def write(self, row: Mapping[str, Any]) -> None:
        """Appends one row; it must have `step`. Its finite numbers also go to the trackers."""
        self._file.write(jsonl.dump(dict(row)) + b"\n")
        self._file.flush()
        self._rows.append(dict(row))
        numbers = {
            name: float(value)
            for name, value in row.items()
            if isinstance(value, (int, float)) and math.isfinite(value) and name not in NOT_PLOTTED
        }
        for sink in self._sinks:
            sink.log(row["step"], numbers)
        if time.monotonic() > self._page_due:
            self._write_page(live=True)

    def _write_page(self, live: bool) -> None:
        started = time.monotonic()
        jsonl.write_text(self.folder / PAGE, training.page(self.folder.name, self._rows, live=live))
        took = time.monotonic() - started
        self._page_due = started + max(PAGE_EVERY, took / PAGE_SHARE)

    def __enter__(self) -> Metrics:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._write_page(live=False)
        for sink in self._sinks:
            sink.close(finished=kind is None)


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl. A last line that a kill cut short is left out.

    Raises DataError with file:line for a corrupt one elsewhere.
    """
    *whole, _ = path.read_bytes().split(b"\n")
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(whole, 1):
        try:
            rows.append(jsonl.parse(line))
        except ValueError as error:
            raise DataError(f"{path}:{number}: not valid JSON ({error})") from error
    return rows
