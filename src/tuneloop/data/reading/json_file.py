"""JSON files: an array of objects, read a window at a time; one object; or JSON Lines under the name .json."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar, cast

from tuneloop.core import jsonl
from tuneloop.core.conversation import JsonObject
from tuneloop.core.errors import DataError
from tuneloop.core.plugins import did_you_mean
from tuneloop.data.reading import Piece, Raw, json_lines
from tuneloop.data.reading.json_lines import SPACE
from tuneloop.data.reading.lines import Cuts, is_marked, settle
from tuneloop.data.reading.place import Place

BLOCK = 1 << 20  # bytes read at a time
NEAR_END = 16  # characters of a window's end in which a fault may be a value that is cut off
TURNS = ("messages", "conversations", "conversation")
"""Lists under these keys are turns of one row, not rows."""
HUGE = 1 << 30


@dataclass(frozen=True, kw_only=True)
class JsonArray(Piece):
    """Some elements of the array."""

    kind: ClassVar[str] = "JSON array"

    def read(self) -> Iterator[JsonObject]:
        assert self.encoding is not None
        with self.place.open(self.start) as file:
            window = _Window(file, self.place, self.encoding, self.start, self.line)
            if not self.start:
                window.take("[")
            for number in range(self.count):
                yield _object(window.value(), self.place, self.first + number)
                window.take(",")


@dataclass(frozen=True, kw_only=True)
class JsonObjectFile(Piece):
    """A file that is one object: the only row, or the holder of the rows under a key."""

    kind: ClassVar[str] = "JSON object"
    key: str | None

    def read(self) -> Iterator[JsonObject]:
        assert self.encoding is not None
        with self.place.open() as file:
            value = _Window(file, self.place, self.encoding).value()
        rows = [value] if self.key is None else value[self.key]
        yield from (_object(row, self.place, number) for number, row in enumerate(rows))


def survey(place: Place, encoding: str, rows_a_piece: int, part: str | None = None) -> Raw:
    """Parses the file once. Raises DataError with the line. `part` names the key of the rows in an object."""

    def look(name: str) -> Raw | None:
        with place.open() as file:
            window = _Window(file, place, name)
            opening = window.peek()
            if opening == "[" and part is None:
                return _array(window, place, name, rows_a_piece)
            if not opening:
                return Raw(str(place), name, 0, ())
            value = window.value()
            following = window.peek()
            if isinstance(value, dict) and following == "{" and part is None:
                return None
            if following:
                raise window.fault(f"text after the end of the value: {following!r}")
        key = _key_of_rows(value, part, place)
        count = 1 if key is None else len(value[key])
        piece = JsonObjectFile(place=place, encoding=name, count=count, key=key)
        return Raw(str(place), name, count, (piece,), _notes(place))

    raw, _ = settle(place, encoding, look)
    return json_lines.survey(place, encoding, rows_a_piece) if raw is None else raw


def _array(window: _Window, place: Place, encoding: str, rows_a_piece: int) -> Raw:
    cuts = Cuts(place, encoding, rows_a_piece)
    window.take("[")
    separated = True
    while (following := window.peek()) not in ("]", ""):
        if not separated:
            raise window.fault("a comma is missing between two elements")
        cuts.row(*((window.offset(), window.line()) if cuts.due else (-1, 0)))
        _object(window.value(), place, cuts.count - 1)
        separated = window.take(",")
    if not following or (separated and cuts.count):
        raise window.fault("the array is not closed" if not following else "a value is missing after the comma")
    window.take("]")
    if window.peek():
        raise window.fault("text after the end of the array")
    return Raw(str(place), encoding, cuts.count, tuple(cuts.pieces(JsonArray)))


class _Window:
    """A part of a file's text that moves on as values are taken from it."""

    def __init__(self, file: IO[bytes], place: Place, encoding: str, start: int = 0, line: int = 1) -> None:
        self.place = place
        self._file, self._encoding = file, "utf-8" if is_marked(encoding) else codecs.lookup(encoding).name
        if start == 0 and is_marked(encoding):
            start = len(file.read(len(codecs.BOM_UTF8)))
        self._decoder = codecs.getincrementaldecoder(self._encoding)()
        self._text, self._at, self._begin, self._line, self._ended = "", 0, start, line, False

    def peek(self) -> str:
        """The next character that is no white space; '' at the end."""
        while True:
            match = _SPACE.match(self._text, self._at)
            assert match is not None
            self._at = match.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def take(self, mark: str) -> bool:
        """Takes the next character where it is `mark`."""
        found = self.peek() == mark
        self._at += found
        return found

    def value(self) -> Any:
        """Takes the next value. Raises DataError with the line."""
        self.peek()
        while True:
            try:
                value, end = jsonl.DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                cut = error.pos > len(self._text) - NEAR_END or error.msg.startswith("Unterminated")
                if not cut or not self._more():
                    raise self._fault_at(error.pos, error.msg) from error
            except RecursionError as error:
                raise DataError(f"{self.place}:{self.line()}: JSON nested too deeply to be data") from error
            except ValueError as error:
                raise self.fault(str(error)) from error
            else:
                if end == len(self._text) and self._more():  # a number may go on
                    continue
                self._at = end
                return value

    def offset(self) -> int:
        """The byte at which the window's first character not taken stands; -1 where the encoding cannot tell."""
        return self._begin + len(self._text[: self._at].encode()) if self._encoding == "utf-8" else -1

    def line(self) -> int:
        """The line of the first character not taken."""
        return self._line + self._text.count("\n", 0, self._at)

    def fault(self, message: str) -> DataError:
        return self._fault_at(self._at, message)

    def _fault_at(self, position: int, message: str) -> DataError:
        line = self._line + self._text.count("\n", 0, position)
        column = position - self._text.rfind("\n", 0, position)
        return DataError(f"{self.place}:{line}: not valid JSON ({message} at column {column})")

    def _more(self) -> bool:
        """Another block of text, twice as large as what is left over: a large value is not parsed often."""
        if self._ended:
            return False
        self._begin, self._line = self.offset(), self.line()
        self._text = self._text[self._at :]
        self._at = 0
        block = self._file.read(max(BLOCK, 2 * len(self._text)))
        self._ended = not block
        self._text += self._decoder.decode(block, final=self._ended)
        return True


def _object(value: Any, place: Place, number: int) -> JsonObject:
    if not isinstance(value, dict):
        found = f"{type(value).__name__}: {str(value)[:60]!r}"
        raise DataError(f"{place}: element {number} is no object but {found}")
    return cast(JsonObject, value)


def _key_of_rows(value: Any, part: str | None, place: Place) -> str | None:
    """Under which key the rows stand; None where the object itself is the row. Raises DataError."""
    if not isinstance(value, dict):
        raise DataError(f"{place}: expected an array of objects, found {type(value).__name__}")
    lists = [key for key, rows in value.items() if isinstance(rows, list) and rows and isinstance(rows[0], dict)]
    if part is None:
        if len(value) == 1 and lists and lists[0] not in TURNS:
            raise DataError(f"{place}: the rows stand under the key '{lists[0]}': write the path as {place}#{lists[0]}")
        return None
    if not isinstance(value.get(part), list):
        held = f"lists of objects stand under: {', '.join(lists)}" if lists else "it holds no list of objects"
        raise DataError(f"{place}: no rows stand under the key '{part}'{did_you_mean(part, lists)}; {held}")
    return part


def _notes(place: Place) -> tuple[str, ...]:
    size = Path(place.path).stat().st_size
    if size < HUGE:
        return ()
    return (
        f"{place} is one JSON object of {size / HUGE:.1f} GiB and is held in memory whole; JSON Lines would not be",
    )


_SPACE = re.compile(f"[{SPACE}]*")
