"""Trays: shards between two passes, with what left them; all of them together as one numbered sequence of rows."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tuneloop.core import jsonl
from tuneloop.core.conversation import Drop, Example, JsonObject, Origin
from tuneloop.data.shards import Shard
from tuneloop.data.source import Source
from tuneloop.data.steps import Rejection, Rows


class Left(NamedTuple):
    """A row that left, by its number in its source, and the line that says so."""

    row: int
    line: bytes


@dataclass
class Ledger:
    """A file of rows that left."""

    path: Path
    held: list[Left] | None = None
    """What stands in it, where there is room; it never goes to another process."""

    def rows(self) -> list[Left]:
        if self.held is not None:
            return self.held
        lines = self.path.read_bytes().splitlines()
        return [Left(jsonl.parse_dumped(line)["origin"]["row"], line) for line in lines]

    def __getstate__(self) -> JsonObject:
        return {"path": self.path, "held": None}


@dataclass
class Tray:
    """A shard, the rows that set steps took out of it since it was written, and the drops of the passes before."""

    shard: Shard
    source: Source
    gone: dict[int, tuple[str, Rejection]] = field(default_factory=dict[int, tuple[str, Rejection]])
    """Index in the shard → the step and its reason."""
    drops: list[Ledger] = field(default_factory=list[Ledger])
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

    @property
    def size(self) -> int:
        """Bytes of what is held of it."""
        return self.shard.size + sum(len(one.line) for ledger in self.drops for one in ledger.held or ())

    def all_drops(self) -> list[Left]:
        """Everything that left, in the order of the rows."""
        left = [one for ledger in self.drops for one in ledger.rows()]
        lines = list(self.shard.lines()) if self.gone else []
        indices = sorted(self.gone)
        for index, example in zip(indices, self.shard.examples(indices), strict=True):
            left.append(left_of(dropped(example, *self.gone[index]), lines[index]))
        return sorted(left, key=lambda one: one.row)

    def let_go(self) -> None:
        """Keeps the rows in files alone."""
        self.shard.let_go()
        for ledger in self.drops:
            ledger.held = None

    def remove(self) -> None:
        """Removes the rows from memory and disk; columns and numbers stay."""
        self.shard.remove()
        self.drops.clear()


def dropped(example: Example, name: str, rejection: Rejection) -> Drop:
    """A step's rejection of a row as the Drop that is listed."""
    return Drop(example, name, rejection.reason, example.origin, rejection.evidence)


def left_of(drop: Drop, line: bytes | None) -> Left:
    """What is listed of a drop. An Example that has a line in a shard is not written anew."""
    if line is not None and not jsonl.is_spaced(line):
        rest = {"step": drop.step, "reason": drop.reason, "origin": drop.origin.to_json(), "evidence": drop.evidence}
        if not jsonl.is_spaced(dumped := jsonl.dump(rest)):
            line = b"".join((b'{"example":', line.removesuffix(b"\n"), b",", dumped[1:]))
            return Left(drop.origin.row, line)
    return Left(drop.origin.row, jsonl.dump(drop.to_json()))


class Trays(Sequence[Tray]):
    """The rows of several trays, numbered through in their order."""

    def __init__(self, trays: Sequence[Tray]) -> None:
        self._trays = list(trays)
        self.starts = np.cumsum([0, *(tray.rows for tray in trays)])
        self._starts: list[int] = self.starts.tolist()

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
        tray = bisect_right(self._starts, number) - 1
        return self._trays[tray], number - self._starts[tray]

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
