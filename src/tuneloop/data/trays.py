"""Trays: shards between two passes, with what left them; all of them together as one numbered sequence of rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tuneloop.core import jsonl
from tuneloop.core.conversation import Drop, Example, JsonObject, Origin
from tuneloop.data.shards import Shard
from tuneloop.data.source import Source
from tuneloop.data.steps import Rejection, Rows


@dataclass
class Tray:
    """A shard, the rows that set steps took out of it since it was written, and the drops of the passes before."""

    shard: Shard
    source: Source
    gone: dict[int, tuple[str, Rejection]] = field(default_factory=dict[int, tuple[str, Rejection]])
    """Index in the shard → the step and its reason."""
    drops: list[Path] = field(default_factory=list[Path])
    counted: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    """(step, reason) → rows in those files."""
    notes: Counter[str] = field(default_factory=Counter[str])
    """What the source's format decided, with the number of rows."""

    @property
    def rows(self) -> int:
        return len(self.shard)

    @property
    def rows_in(self) -> int:
        """Rows that were read for this tray."""
        return self.rows + self.counted.total()

    def all_drops(self) -> list[JsonObject]:
        """Everything that left, in the order of the rows."""
        lines = [jsonl.parse_dumped(line) for path in self.drops for line in path.read_bytes().splitlines()]
        indices = sorted(self.gone)
        for index, example in zip(indices, self.shard.examples(indices), strict=True):
            lines.append(dropped(example, *self.gone[index]).to_json())
        return sorted(lines, key=lambda line: line["origin"]["row"])


def dropped(example: Example, name: str, rejection: Rejection) -> Drop:
    """A step's rejection of a row as the Drop that is listed."""
    return Drop(example, name, rejection.reason, example.origin, rejection.evidence)


class Trays(Sequence[Tray]):
    """The rows of several trays, numbered through in their order."""

    def __init__(self, trays: Sequence[Tray]) -> None:
        self._trays = list(trays)
        self.starts = np.cumsum([0, *(tray.rows for tray in trays)])

    def __getitem__(self, index: int) -> Tray:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._trays[index]

    def __len__(self) -> int:
        return len(self._trays)

    @property
    def rows(self) -> int:
        return int(self.starts[-1])

    def column(self, name: str) -> np.ndarray:
        """One column over all rows."""
        return np.concatenate([tray.shard.columns[name] for tray in self._trays])

    def left(self) -> np.ndarray:
        """The numbers of the rows that no set step took out."""
        alive = np.ones(self.rows, bool)
        for start, tray in zip(self.starts, self._trays, strict=False):
            alive[[int(start) + index for index in tray.gone]] = False
        return np.flatnonzero(alive)

    def locate(self, number: int) -> tuple[Tray, int]:
        """The tray of a row and its index there."""
        tray = int(np.searchsorted(self.starts, number, "right")) - 1
        return self._trays[tray], number - int(self.starts[tray])

    def view(self, name: str, numbers: np.ndarray) -> Rows:
        """Some rows as a set step sees them whose keys have that name."""
        prefix = f"{name}."
        names = [key for key in (self._trays[0].shard.columns if self._trays else ()) if key.startswith(prefix)]
        keys = {key.removeprefix(prefix): self.column(key)[numbers] for key in names}
        return Rows(
            keys,
            len(numbers),
            lambda index: self.place(int(numbers[index])),
            lambda indices: self.read([int(numbers[index]) for index in indices]),
        )

    def place(self, number: int) -> JsonObject:
        """How evidence names a row."""
        tray, inside = self.locate(number)
        columns = tray.shard.columns
        origin = Origin(tray.source.path, int(columns["row"][inside]))
        return {"id": f"{int(columns['id'][inside]):016x}", "origin": origin.to_json()}

    def read(self, numbers: Sequence[int]) -> list[Example]:
        """Some rows whole, in the order asked for."""
        wanted = np.asarray(numbers, np.int64)
        where = np.searchsorted(self.starts, wanted, "right") - 1
        found: dict[int, Example] = {}
        for tray in np.unique(where).tolist():
            at = np.flatnonzero(where == tray)
            inside = (wanted[at] - self.starts[tray]).tolist()
            found |= zip(at.tolist(), self._trays[tray].shard.examples(inside), strict=True)
        return [found[index] for index in range(len(wanted))]
