"""Plain text: documents separated by blank lines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from tuneloop.core.conversation import JsonObject
from tuneloop.data.reading import Piece, Raw
from tuneloop.data.reading.lines import Cuts, lines, settle
from tuneloop.data.reading.place import Place

BLANK = " \t\r\n"


@dataclass(frozen=True, kw_only=True)
class Text(Piece):
    """Some documents, as records with the one key `text`."""

    kind: ClassVar[str] = "text"

    def read(self) -> Iterator[JsonObject]:
        assert self.encoding is not None
        for text, _, _ in _documents(self.place, self.encoding, self.start, self.stop):
            yield {"text": text}


def survey(place: Place, encoding: str, rows_a_piece: int) -> Raw:
    """Counts the documents. Raises DataError."""

    def count(name: str) -> Cuts:
        cuts = Cuts(place, name, rows_a_piece)
        for _, offset, line in _documents(place, name):
            cuts.row(offset, line)
        return cuts

    cuts, name = settle(place, encoding, count)
    return Raw(str(place), name, cuts.count, tuple(cuts.pieces(Text)))


def _documents(place: Place, encoding: str, start: int = 0, stop: int = 0) -> Iterator[tuple[str, int, int]]:
    """(document, byte and line where it begins)."""
    held, began, offset = list[str](), (start, 1), start
    for number, (line, size) in enumerate(lines(place, encoding, start, stop), 1):
        if line.strip(BLANK):
            if not held:
                began = (offset, number)
            held.append(f"{line[:-2]}\n" if line.endswith("\r\n") else line)
        elif held:
            yield from _document(held, began)
            held = []
        offset += size
    yield from _document(held, began)


def _document(held: list[str], began: tuple[int, int]) -> Iterator[tuple[str, int, int]]:
    text = "".join(held).strip("\n")
    if text.strip():  # a line of ideographic spaces alone is no document
        yield text, *began
