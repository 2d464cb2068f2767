"""Arrow files as the library `datasets` saves them: streams of record batches, cut at the batches.

The stream's frame is read here (https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format), so that one
batch at a time is in memory; what is in a batch, polars reads.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, ClassVar

from tuneloop.core.conversation import JsonObject
from tuneloop.core.errors import DataError
from tuneloop.data.reading import Piece, Raw, parquet
from tuneloop.data.reading.place import Place

RANDOM_ACCESS = b"ARROW1"  # how Arrow's other form of file begins
CONTINUED = 0xFFFFFFFF
END = struct.pack("<II", CONTINUED, 0)
RECORDS = 3  # the header type of a message with rows; the others describe columns and dictionaries


@dataclass(frozen=True, kw_only=True)
class Batches(Piece):
    """Some record batches."""

    kind: ClassVar[str] = "Arrow"

    def read(self) -> Iterator[JsonObject]:
        import polars as pl

        description = b""
        with self.place.open() as file:
            for message in _messages(file):
                if message.rows is None:
                    description += _bytes(file, message)
                elif self.stop and message.start >= self.stop:
                    return
                elif message.start >= self.start:
                    stream = description + _bytes(file, message) + END
                    yield from parquet.records_of(pl.read_ipc_stream(stream))


@dataclass(frozen=True)
class _Message:
    start: int
    stop: int
    rows: int | None
    """None where the message describes columns."""


def survey(place: Place, encoding: str, rows_a_piece: int) -> Raw:
    """Hops from batch to batch. Raises DataError."""
    import polars as pl

    with place.open() as file:
        if file.read(len(RANDOM_ACCESS)) == RANDOM_ACCESS:
            return parquet.survey(place, encoding, rows_a_piece)
        begins, rows, description = [(0, 0)], 0, b""
        try:
            for message in _messages(file):
                if message.rows is None:
                    description += _bytes(file, message)
                    continue
                if rows - begins[-1][1] >= rows_a_piece:
                    begins.append((message.start, rows))
                rows += message.rows
            pl.read_ipc_stream(description + END)
        except (struct.error, pl.exceptions.PolarsError, EOFError) as error:
            raise DataError(f"{place}: not a readable Arrow file ({error})") from error
    ends = [*begins[1:], (0, rows)]
    pieces = (
        Batches(place=place, first=first, count=end - first, start=start, stop=stop)
        for (start, first), (stop, end) in zip(begins, ends, strict=True)
    )
    return Raw(str(place), None, rows, tuple(pieces))


def _messages(file: IO[bytes]) -> Iterator[_Message]:
    """The messages of a stream in their order. Raises EOFError or struct.error where it is none, or is cut off."""
    start, size = 0, file.seek(0, 2)
    while start < size:
        file.seek(start)
        (length,) = struct.unpack("<I", file.read(4))
        prefix = 4
        if length == CONTINUED:  # since Arrow 0.15
            (length,) = struct.unpack("<I", file.read(4))
            prefix = 8
        if length == 0:
            return
        if start + prefix + length > size:
            raise EOFError("it ends in the midst of a message")
        kind, rows, body = _header(file.read(length))
        stop = start + prefix + length + body
        if stop > size:
            raise EOFError("it ends in the midst of a message")
        yield _Message(start, stop, rows if kind == RECORDS else None)
        start = stop


def _bytes(file: IO[bytes], message: _Message) -> bytes:
    file.seek(message.start)
    return file.read(message.stop - message.start)


def _header(data: bytes) -> tuple[int, int, int]:
    """(type, rows, bytes of the body) of a message: fields 1, 2 and 3 of the flatbuffer `Message`."""
    (root,) = struct.unpack_from("<I", data)
    kind, header, body = (_field(data, root, number) for number in (1, 2, 3))
    rows = 0
    if header:
        (step,) = struct.unpack_from("<I", data, header)
        length = _field(data, header + step, 0)
        rows = struct.unpack_from("<q", data, length)[0] if length else 0
    return data[kind] if kind else 0, rows, struct.unpack_from("<q", data, body)[0] if body else 0


def _field(data: bytes, table: int, number: int) -> int:
    """Where a field of a flatbuffer table stands; 0 where it is left out."""
    (back,) = struct.unpack_from("<i", data, table)
    vtable = table - back
    (size,) = struct.unpack_from("<H", data, vtable)
    slot = 4 + 2 * number
    if slot >= size:
        return 0
    (offset,) = struct.unpack_from("<H", data, vtable + slot)
    return table + offset if offset else 0
