"""Several files as one source: rows are numbered through, and small files share a piece."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from tuneloop.core.conversation import JsonObject
from tuneloop.data.reading import Piece, Raw
from tuneloop.data.reading.place import Place


@dataclass(frozen=True, kw_only=True)
class Bundle(Piece):
    """Successive pieces of several files: ten thousand files of one row are not ten thousand tasks."""

    kind: ClassVar[str] = "files"
    parts: tuple[Piece, ...]

    def read(self) -> Iterator[JsonObject]:
        for part in self.parts:
            yield from part.records()


def join(path: str, files: Sequence[Raw], rows_a_piece: int, notes: tuple[str, ...] = ()) -> Raw:
    """The source that consists of these files."""
    pieces, rows = list[Piece](), 0
    for file in files:
        pieces += [replace(piece, first=piece.first + rows) for piece in file.pieces]
        rows += file.rows
    encodings = list(dict.fromkeys(file.encoding for file in files if file.encoding))
    told = tuple(note for file in files for note in file.notes)
    return Raw(path, ", ".join(encodings) or None, rows, tuple(_bundled(path, pieces, rows_a_piece)), notes + told)


def _bundled(path: str, pieces: Sequence[Piece], rows_a_piece: int) -> Iterator[Piece]:
    held: list[Piece] = []
    for piece in pieces:
        if held and held[-1].first + held[-1].count - held[0].first + piece.count > rows_a_piece:
            yield _bundle(path, held)
            held = []
        held.append(piece)
    if held:
        yield _bundle(path, held)


def _bundle(path: str, held: list[Piece]) -> Piece:
    if len(held) == 1:
        return held[0]
    count = sum(piece.count for piece in held)
    return Bundle(place=Place(path), first=held[0].first, count=count, parts=tuple(held))
