"""metrics.jsonl, one line a step, and generations.jsonl, one an answer; mirrored to trackers and a page.

On resume, lines after the checkpoint go.
"""

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
from tuneloop.pages import answers, training
from tuneloop.track.trackers import Story, Tracker

NOT_PLOTTED = {"step", "epoch"}
MEASURED = {
    "seconds", "validation_seconds", "tokens_per_second", "supervised_tokens_per_second", "computed_tokens", "mfu",
    "memory_gib",
}  # fmt: skip
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
        self.rows = _kept(self.path, resume_from)
        """All lines so far."""
        self._answers = _kept(folder / answers.FILE, resume_from)
        self._file: IO[bytes] = self.path.open("ab")
        tracking = tracking or Tracking()
        story = Story(folder, tracking.project, tracking.settings, resume_from)
        self._sinks = [tracker.open(story) for tracker in tracking.to]
        self._page_due = 0.0

    def write(self, row: Mapping[str, Any], answered: Sequence[Mapping[str, Any]] = ()) -> None:
        """Appends one row; it must have `step`. Its finite numbers also go to the trackers, and some of the answers."""
        if answered:
            self._write_answers(row["step"], answered)
        self._file.write(jsonl.dump(dict(row)) + b"\n")
        self._file.flush()
        self.rows.append(dict(row))
        numbers = {
            name: float(value)
            for name, value in row.items()
            if isinstance(value, (int, float)) and math.isfinite(value) and name not in NOT_PLOTTED
        }
        for sink in self._sinks:
            sink.log(row["step"], numbers)
        if time.monotonic() > self._page_due:
            self._write_page(live=True)

    def _write_answers(self, step: int, answered: Sequence[Mapping[str, Any]]) -> None:
        lines = [{"step": step, **line} for line in answered]
        with (self.folder / answers.FILE).open("ab") as file:
            file.write(b"".join(jsonl.dump(line) + b"\n" for line in lines))
        self._answers += answers.spread(lines)  # the same rows at every validation
        for sink in self._sinks:
            sink.answers(step, answers.table(lines))

    def _write_page(self, live: bool) -> None:
        started = time.monotonic()
        page = training.page(self.folder.name, self.rows, live=live, answers=self._answers)
        jsonl.write_text(self.folder / PAGE, page)
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


def _kept(path: Path, last: int) -> list[dict[str, Any]]:
    """The lines up to a step, of which alone the file is left."""
    if not path.exists():
        return []
    rows = [row for row in read(path) if row["step"] <= last]
    jsonl.write_lines(path, rows)
    return rows


def answers_of(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's generations.jsonl: {"step", "id", "prompt", "reference", "answer", "scores"}, or none."""
    path = run / answers.FILE
    return read(path) if path.exists() else []


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
