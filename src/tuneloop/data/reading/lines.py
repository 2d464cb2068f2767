"""Text files line by line, in any encoding, and the borders at which they can be cut.

A file in UTF-8 is held a megabyte or a line at a time. In another encoding it is decoded whole once, to find out which;
where a byte 0x0A may be half of a character (UTF-16), it is decoded whole whenever it is read.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tuneloop.data.encoding import MARK_SIZE, decode, first_guess
from tuneloop.data.reading import Piece
from tuneloop.data.reading.place import Place

T = TypeVar("T")
P = TypeVar("P", bound=Piece)
LINEWISE = frozenset(
    codecs.lookup(name).name
    for name in ("utf-8", "utf-8-sig", "ascii", "gb18030", "gbk", "gb2312", "big5", "cp950", "latin-1", "cp1252")
)
"""Encodings in which a byte 0x0A is always a line end. In all others a file is one piece."""

_BLOCK = 1 << 20


def settle(place: Place, encoding: str, survey: Callable[[str], T]) -> tuple[T, str]:
    """What `survey` finds under the file's encoding, and that encoding's name.

    UTF-8 is tried by the survey itself, so that the usual file is read once. Raises DataError with the line where no
    encoding fits.
    """
    with place.open() as file:
        guess = first_guess(file.read(MARK_SIZE), encoding)
    try:
        return survey(guess), guess
    except UnicodeDecodeError:
        _, name = decode(place.read(), str(place), encoding)  # finds another one, or says what is wrong
        return survey(name), name


def lines(place: Place, encoding: str, start: int = 0, stop: int = 0) -> Iterator[tuple[str, int]]:
    """Each line with its end, and its size in bytes. Only \\n ends a line; a `stop` of 0 is the file's end.

    Raises UnicodeDecodeError.
    """
    end = start
    for data, offset in blocks(place, encoding, start, stop):
        sizes = [len(line) + 1 for line in data.split(b"\n")]
        sizes[-1] -= 1  # no line end behind it
        sizes[0] += offset - end  # the mark
        end = offset + len(data)
        yield from zip(io.StringIO(data.decode(codec_of(encoding)), newline="\n"), sizes, strict=False)


def blocks(place: Place, encoding: str, start: int = 0, stop: int = 0) -> Iterator[tuple[bytes, int]]:
    """Whole lines in the encoding `codec_of`, about a megabyte at once, and where each block begins in the file."""
    if not linewise(encoding):
        yield decode(place.read(), str(place), encoding)[0].encode(), start
        return
    with place.open(start) as file:
        mark = file.read(len(codecs.BOM_UTF8)) if start == 0 and is_marked(encoding) else b""
        offset = start + len(mark)
        while data := file.read(min(_BLOCK, stop - offset) if stop else _BLOCK):
            data += b"" if data.endswith(b"\n") else file.readline()
            yield data, offset
            offset += len(data)


def codec_of(encoding: str) -> str:
    """The encoding of a file's `blocks`: its own, or UTF-8 where they have no mark or are made from the whole file."""
    return encoding if linewise(encoding) and not is_marked(encoding) else "utf-8"


def linewise(encoding: str) -> bool:
    """Whether the file can be cut at the bytes of its line ends."""
    return codecs.lookup(encoding).name in LINEWISE


def is_marked(encoding: str) -> bool:
    """Whether the file begins with UTF-8's byte order mark."""
    return codecs.lookup(encoding).name == "utf-8-sig"


@dataclass
class Cuts:
    """Gathers where pieces begin while a file is read for the first time. The first piece begins with the file."""

    place: Place
    encoding: str
    rows_a_piece: int
    count: int = 0
    """Rows so far."""
    _begins: list[tuple[int, int, int]] = field(default_factory=lambda: [(0, 1, 0)])

    def row(self, offset: int, line: int) -> None:
        """A row begins at that byte, in that line. An offset below 0: in the midst of a line, where no piece begins."""
        if offset >= 0 and self.count - self._begins[-1][2] >= self.rows_a_piece:
            self._begins.append((offset, line, self.count))
        self.count += 1

    def rows(self, offsets: NDArray[np.int64], lines: NDArray[np.int64]) -> None:
        """`row` for each of many rows that begin lines."""
        while (first := self._begins[-1][2] + self.rows_a_piece - self.count) < len(offsets):
            self._begins.append((int(offsets[first]), int(lines[first]), self.count + first))
        self.count += len(offsets)

    @property
    def due(self) -> bool:
        """Whether a piece is to begin with the next row."""
        return self.count - self._begins[-1][2] >= self.rows_a_piece

    def pieces(self, make: Callable[..., P], **more: Any) -> list[P]:
        """The pieces, each ending where the next begins."""
        cuttable = self.place.seekable and linewise(self.encoding)
        begins = self._begins if cuttable else self._begins[:1]
        ends = [*begins[1:], (0, 0, self.count)]
        return [
            make(
                place=self.place, encoding=self.encoding, first=first, count=end - first,
                start=offset, stop=stop, line=line, **more,
            )
            for (offset, line, first), (stop, _, end) in zip(begins, ends, strict=True)
        ]  # fmt: skip
