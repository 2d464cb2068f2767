"""CSV and TSV: fields under the names of the first line. All values stay text: "01" is not 1."""

from __future__ import annotations

import csv
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from tuneloop.core.conversation import JsonObject
from tuneloop.core.errors import DataError
from tuneloop.data.reading import Piece, Raw
from tuneloop.data.reading.lines import Cuts, lines, settle
from tuneloop.data.reading.place import Place

QUOTE_IT = "Put quotes around a field that holds the separator."
NO_QUOTES = "A field of a TSV file holds neither a tab nor a line break."
SHOWN = 12  # columns named in errors about them


@dataclass(frozen=True, kw_only=True)
class Csv(Piece):
    """Some rows; a row with quoted line breaks takes several lines."""

    kind: ClassVar[str] = "CSV"
    delimiter: str

    def read(self) -> Iterator[JsonObject]:
        assert self.encoding is not None
        rows = _Rows(self.place, self.encoding, self.delimiter, self.start, self.stop, self.line)
        names = (_Rows(self.place, self.encoding, self.delimiter) if self.start else rows).header()
        for fields in rows:
            yield dict(zip(names, fields, strict=True))


@dataclass(frozen=True, kw_only=True)
class Tsv(Piece):
    """Some lines. Without quoting: a quote is a character like any other, as in GLUE's files."""

    kind: ClassVar[str] = "TSV"

    def read(self) -> Iterator[JsonObject]:
        assert self.encoding is not None
        rows = _cells(self.place, self.encoding, self.start, self.stop)
        names = _named(next(_cells(self.place, self.encoding) if self.start else rows)[0], self.place)
        for fields, _, _ in rows:
            yield dict(zip(names, fields, strict=True))


def survey_csv(place: Place, encoding: str, rows_a_piece: int) -> Raw:
    """Reads all rows once. Raises DataError with the line where a row does not fit the header."""

    def count(name: str) -> tuple[Cuts, str]:
        delimiter = _delimiter(place, name)
        rows, cuts = _Rows(place, name, delimiter), Cuts(place, name, rows_a_piece)
        columns = rows.header()
        for fields in rows:
            if len(fields) != len(columns):
                raise _misfit(f"{place}:{rows.row_line}", fields, columns, QUOTE_IT)
            cuts.row(rows.row_offset, rows.row_line)
        return cuts, delimiter

    (cuts, delimiter), name = settle(place, encoding, count)
    return Raw(str(place), name, cuts.count, tuple(cuts.pieces(Csv, delimiter=delimiter)))


def survey_tsv(place: Place, encoding: str, rows_a_piece: int) -> Raw:
    """As survey_csv. A file that quotes the names of its columns (Label Studio's, pandas') quotes its fields, too."""

    def count(name: str) -> Cuts | None:
        rows, cuts = _cells(place, name), Cuts(place, name, rows_a_piece)
        header = next(rows, ([], 0, 0))[0]
        if len(header) > 1 and all(re.fullmatch('".*"', cell) for cell in header):
            return None
        columns = _named(header, place)
        for fields, offset, line in rows:
            if len(fields) != len(columns):
                raise _misfit(f"{place}:{line}", fields, columns, NO_QUOTES)
            cuts.row(offset, line)
        return cuts

    cuts, name = settle(place, encoding, count)
    if cuts is None:
        return survey_csv(place, encoding, rows_a_piece)
    return Raw(str(place), name, cuts.count, tuple(cuts.pieces(Tsv)))


class _Rows:
    """Rows of fields, with the byte and the line where the row at hand begins; empty lines are no rows.

    The byte is -1 for a row that begins in the midst of a line, behind a lone carriage return.
    """

    def __init__(
        self, place: Place, encoding: str, delimiter: str, start: int = 0, stop: int = 0, line: int = 1
    ) -> None:
        self.place, self.encoding, self.delimiter = place, encoding, delimiter
        self.row_offset, self.row_line = start, line
        self._offset, self._line = start, line
        self._reader = csv.reader(self._feed(start, stop), delimiter=delimiter, strict=True)

    def __iter__(self) -> Iterator[list[str]]:
        return self

    def __next__(self) -> list[str]:
        limit = csv.field_size_limit(sys.maxsize)  # the default is an error for a field of 128 KB
        try:
            while True:
                self.row_offset, self.row_line = self._offset, self._line
                fields = next(self._reader)
                if fields:
                    return fields
        except csv.Error as error:
            raise DataError(
                f"{self.place}:{self.row_line}: not valid CSV ({error}) in the row that begins here"
            ) from error
        finally:
            csv.field_size_limit(limit)

    def header(self) -> list[str]:
        """The names of the columns: the first row."""
        names = next(self, [])
        if self.delimiter.join(names) == f"sep={self.delimiter}":  # a hint to Excel
            names = next(self, [])
        return _named(names, self.place)

    def _feed(self, start: int, stop: int) -> Iterator[str]:
        end = start
        for line, size in lines(self.place, self.encoding, start, stop):
            end += size
            # old Macintosh files end their lines with \r alone; inside quotes the reader puts the parts together again
            parts = re.split(r"(?<=\r)(?!\n|$)", line) if "\r" in line else [line]
            for part in parts:
                self._line += 1
                self._offset = end if part is parts[-1] else -1
                yield part


def _cells(place: Place, encoding: str, start: int = 0, stop: int = 0) -> Iterator[tuple[list[str], int, int]]:
    """(fields, byte, line) of each line that is not empty."""
    offset = start
    for number, (line, size) in enumerate(lines(place, encoding, start, stop), 1):
        text = line.removesuffix("\n").removesuffix("\r")
        if text.strip("\r"):
            yield text.split("\t"), offset, number
        offset += size


def _delimiter(place: Place, encoding: str) -> str:
    """By the first line: Excel writes ; in many countries, and tabs as "Unicode text"."""
    line = next(lines(place, encoding), ("", 0))[0]
    header = re.sub('"[^"]*"', "", re.split(r"[\r\n]", line)[0])
    return next((mark for mark in (",", ";", "\t") if mark in header), ",")


def _named(fields: list[str], place: Place) -> list[str]:
    names = [name.strip() for name in fields]
    for name, times in Counter(names).items():
        if not name or times > 1:
            fault = f"the column name '{name}' stands twice" if name else "a column has no name"
            found = f"{names[:SHOWN]}{' …' if len(names) > SHOWN else ''}"
            raise DataError(f"{place}:1: {fault}. The first line must name the columns; found: {found}")
    return names


def _misfit(where: str, fields: list[str], names: list[str], advice: str) -> DataError:
    shown = " | ".join(fields[:SHOWN])[:80]
    return DataError(f"{where}: {len(fields)} fields, but {len(names)} columns. {advice} Found: {shown}")
