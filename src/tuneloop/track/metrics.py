"""metrics.jsonl, one line a step, mirrored to TensorBoard. On resume, lines after the checkpoint are cut off."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from tuneloop.core import jsonl
from tuneloop.core.errors import DataError

NOT_PLOTTED = {"step", "epoch"}


class Metrics:
    """Writer of a run's curves. `resume_from` keeps the lines up to that step, so no gap and no repeat remains."""

    def __init__(self, folder: Path, resume_from: int = 0) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self.path = folder / "metrics.jsonl"
        kept = [row for row in read(self.path) if row["step"] <= resume_from] if self.path.exists() else []
        jsonl.write_lines(self.path, kept)
        self._file: IO[bytes] = self.path.open("ab")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=resume_from + 1 if resume_from else None)

    def write(self, row: Mapping[str, Any]) -> None:
        """Appends one row; it must have `step`. Numbers also become TensorBoard scalars."""
        self._file.write(jsonl.dump(dict(row)) + b"\n")
        self._file.flush()
        for name, value in row.items():
            if isinstance(value, (int, float)) and name not in NOT_PLOTTED:
                self._board.add_scalar(name, value, row["step"])

    def __enter__(self) -> Metrics:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._board.close()


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
