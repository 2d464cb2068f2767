"""Files as pieces: each kind of file surveys a file once and says where pieces of it begin, and reads a piece again.

A piece is small, goes to worker processes, and brings back each value exactly as the file holds it: no schema is
inferred, since readers that do unify the arguments of different tool calls into one struct full of nulls.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from tuneloop.core.conversation import JsonObject
from tuneloop.core.errors import DataError
from tuneloop.data.reading.place import Place

T = TypeVar("T")
MEMBER = "__member__"
"""The key under which records from an archive carry the name of their file in it."""
EXAMINED = 50_000  # rows read at most for `Raw.head`


@dataclass(frozen=True, kw_only=True)
class Piece(ABC):
    """Some successive rows of a file."""

    kind: ClassVar[str]
    place: Place
    encoding: str | None = None
    first: int = 0
    """The number of its first row in the source."""
    count: int = 0
    start: int = 0
    stop: int = 0
    """Where it begins and ends in the file: bytes, or rows where the kind has rows. An end of 0 is the file's end."""
    line: int = 1
    """The line number at `start`, for errors."""

    @property
    def path(self) -> str:
        return self.place.path

    def records(self) -> Iterator[JsonObject]:
        """Its rows, read anew. Raises DataError where a row is corrupt, or the file is not what was surveyed."""
        seen = 0
        for record in self.read():
            yield self._signed(record)
            seen += 1
        if seen != self.count:
            raise DataError(f"{self.place} changed while it was being read: {seen} rows where {self.count} were")

    def pick(self, rows: Sequence[int]) -> list[JsonObject]:
        """Some of its rows, by their numbers within the piece, in rising order."""
        return [self._signed(record) for record in self.read_rows(rows)]

    @abstractmethod
    def read(self) -> Iterator[JsonObject]:
        """The records that stand in its part of the file."""

    def read_rows(self, rows: Sequence[int]) -> Iterator[JsonObject]:
        """Those of some numbers; override it where the others need not be parsed."""
        wanted = iter(rows)
        next_one = next(wanted, None)
        for number, record in enumerate(self.read()):
            if next_one is None:
                return
            if number == next_one:
                yield record
                next_one = next(wanted, None)

    def _signed(self, record: JsonObject) -> JsonObject:
        return {**record, MEMBER: self.place.member} if self.place.member is not None else record


@dataclass(frozen=True)
class Raw:
    """A source surveyed: how many rows it has, and its pieces in their order. `encoding` is None for binary files."""

    path: str
    encoding: str | None
    rows: int
    pieces: tuple[Piece, ...]
    notes: tuple[str, ...] = ()
    """What a person should know about how it was read."""

    def records(self) -> Iterator[JsonObject]:
        """All rows; a row's number counts from 0."""
        for piece in self.pieces:
            yield from piece.records()

    def head(self, count: int = 200) -> list[JsonObject]:
        """Up to `count` rows spread over the source: one sorted by kind would fool its first rows.

        Of large pieces only the beginnings are looked at, so that it costs little.
        """
        if self.rows <= count:
            return list(self.records())
        pieces = _spread(self.pieces, count)
        share, examined = max(1, count // len(pieces)), max(1, EXAMINED // len(pieces))
        return [record for piece in pieces for record in piece.pick(_spread(range(min(piece.count, examined)), share))]


def _spread(values: Sequence[T], count: int) -> list[T]:
    """`count` of the values at equal distances, or all of them."""
    if len(values) <= count:
        return list(values)
    return [values[number * len(values) // count] for number in range(count)]
