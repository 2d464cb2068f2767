"""JSON Lines: one JSON object a line; blank lines are no rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, cast

from tuneloop.core import jsonl
from tuneloop.core.conversation import JsonObject
from tuneloop.core.errors import DataError
from tuneloop.data.reading import Piece, Raw
from tuneloop.data.reading.lines import Cuts, lines, settle
from tuneloop.data.reading.place import Place

SPACE = " \t\r\n"


@dataclass(frozen=True, kw_only=True)
class JsonLines(Piece):
    """Some lines of the file."""

    kind: ClassVar[str] = "JSON Lines"

    def read(self) -> Iterator[JsonObject]:
        assert self.encoding is not None
        for number, (line, _) in enumerate(lines(self.place, self.encoding, self.start, self.stop), self.line):
            if not line.isspace():
                yield _parse_object(line, self.place, number)


def survey(place: Place, encoding: str, rows_a_piece: int) -> Raw:
    """Counts the lines; they are parsed when they are read. Raises DataError."""

    def count(name: str) -> Cuts:
        cuts, offset = Cuts(place, name, rows_a_piece), 0
        for number, (line, size) in enumerate(lines(place, name), 1):
            if not line.isspace():
                cuts.row(offset, number)
            offset += size
        return cuts

    cuts, name = settle(place, encoding, count)
    return Raw(str(place), name, cuts.count, tuple(cuts.pieces(JsonLines)))


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
