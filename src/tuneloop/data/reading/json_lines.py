"""JSON Lines: one JSON object a line; blank lines are no rows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
import orjson
from numpy.typing import NDArray

from tuneloop.core import jsonl
from tuneloop.core.conversation import JsonObject
from tuneloop.core.errors import DataError
from tuneloop.data.reading import Piece, Raw
from tuneloop.data.reading.lines import Cuts, blocks, codec_of, settle
from tuneloop.data.reading.place import Place

SPACE = " \t\r\n"
_LARGE = re.compile(rb"[0-9]{19}")
"""Stands in every integer beyond 64 bits."""


@dataclass(frozen=True, kw_only=True)
class JsonLines(Piece):
    """Some lines of the file."""

    kind: ClassVar[str] = "JSON Lines"

    def read(self) -> Iterator[JsonObject]:
        for lines, number in self._lines():
            objects = _objects(lines) if self._codec == "utf-8" else None
            yield from objects or self._parsed(lines, number)

    def read_rows(self, rows: Sequence[int]) -> Iterator[JsonObject]:
        wanted, first, number = np.array(rows, np.int64), 0, self.line
        for data, _ in self._blocks():
            starts = _starts(data)
            filled = np.flatnonzero(_filled(data, starts, self._codec))
            for row in wanted[(wanted >= first) & (wanted < first + len(filled))].tolist():
                at = int(filled[row - first])
                (line,) = _lines(data, starts, [at])
                yield _parse_object(line.decode(self._codec), self.place, number + at)
            first, number = first + len(filled), number + len(starts)

    @property
    def _codec(self) -> str:
        assert self.encoding is not None
        return codec_of(self.encoding)

    def _lines(self) -> Iterator[tuple[list[bytes], int]]:
        """Some lines at a time, and the number of the first."""
        number = self.line
        for data, _ in self._blocks():
            lines = data.removesuffix(b"\n").split(b"\n")
            yield lines, number
            number += len(lines)

    def _blocks(self) -> Iterator[tuple[bytes, int]]:
        assert self.encoding is not None
        return blocks(self.place, self.encoding, self.start, self.stop)

    def _parsed(self, lines: Sequence[bytes], number: int) -> Iterator[JsonObject]:
        for at, line in enumerate(lines, number):
            if _is_filled(line, self._codec):
                yield _parse_object(line.decode(self._codec), self.place, at)


def survey(place: Place, encoding: str, rows_a_piece: int) -> Raw:
    """Counts the lines; they are parsed when they are read. Raises DataError."""

    def count(name: str) -> Cuts:
        cuts, codec, number = Cuts(place, name, rows_a_piece), codec_of(name), 1
        for data, offset in blocks(place, name):
            data.decode(codec)  # raises where the encoding is another one
            starts = _starts(data)
            filled = np.flatnonzero(_filled(data, starts, codec))
            cuts.rows(offset + starts[filled], number + filled)
            number += len(starts)
        return cuts

    cuts, name = settle(place, encoding, count)
    return Raw(str(place), name, cuts.count, tuple(cuts.pieces(JsonLines)))


def _objects(lines: Sequence[bytes]) -> list[JsonObject] | None:
    """The objects of some lines, in half the time of `jsonl.parse`; None where it is not exact or a line holds none."""
    data = b"\n".join(lines)
    digits = np.frombuffer(data, np.uint8)[::4] - ord("0") < 10
    perhaps = np.flatnonzero(digits[:-3] & digits[1:-2] & digits[2:-1] & digits[3:]) * 4
    if any(_LARGE.search(data, max(0, at - 3), at + 19) for at in perhaps.tolist()):
        return None  # orjson would round it
    try:
        values = list(map(orjson.loads, lines))
    except orjson.JSONDecodeError:
        return None
    return values if set(map(type, values)) <= {dict} else None


def _starts(data: bytes) -> NDArray[np.int64]:
    """Where each line of a block begins."""
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))
    return np.concatenate(([0], ends[ends < len(data) - 1] + 1))


def _filled(data: bytes, starts: NDArray[np.int64], codec: str) -> NDArray[np.bool_]:
    """Which lines of a block are rows."""
    filled = np.frombuffer(data, np.uint8)[starts] == ord("{")
    doubtful = np.flatnonzero(~filled).tolist()
    filled[doubtful] = [_is_filled(line, codec) for line in _lines(data, starts, doubtful)]
    return filled


def _lines(data: bytes, starts: NDArray[np.int64], which: Sequence[int]) -> Iterator[bytes]:
    """Some lines of a block, without their ends."""
    for at in which:
        stop = int(starts[at + 1]) if at + 1 < len(starts) else len(data)
        yield data[int(starts[at]) : stop].removesuffix(b"\n")


def _is_filled(line: bytes, codec: str) -> bool:
    return line[:1] == b"{" or bool(line.decode(codec).strip())


def _parse_object(line: str, place: Place, number: int) -> JsonObject:
    text = line.rstrip(SPACE)
    begin = len(text) - len(text.lstrip(SPACE))
    try:
        value, end = jsonl.DECODER.raw_decode(text, begin)
        if end != len(text):
            raise json.JSONDecodeError("extra data", text, end)
    except json.JSONDecodeError as error:
        fault = f"{error.msg} at column {error.colno}"
        raise DataError(f"{place}:{number}: not valid JSON ({fault}). The line begins: {line[:60]!r}") from error
    except ValueError as error:
        raise DataError(f"{place}:{number}: not valid JSON ({error}). The line begins: {line[:60]!r}") from error
    except RecursionError as error:
        raise DataError(f"{place}:{number}: JSON nested too deeply to be data") from error
    if not isinstance(value, dict):
        found = type(value).__name__
        raise DataError(f"{place}:{number}: expected a JSON object, found {found}: {line[:60]!r}")
    return cast(JsonObject, value)
