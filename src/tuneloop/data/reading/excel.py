"""Excel and OpenDocument sheets: the first row that is not empty names the columns."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from tuneloop.core.conversation import JsonObject
from tuneloop.core.errors import DataError
from tuneloop.core.plugins import did_you_mean
from tuneloop.data.reading import Piece, Raw
from tuneloop.data.reading.place import Place

if TYPE_CHECKING:
    from python_calamine import CalamineSheet, CalamineWorkbook

EXACT = 2**53  # up to here a float holds every integer


@dataclass(frozen=True, kw_only=True)
class Sheet(Piece):
    """All rows of a sheet: the file must be parsed whole anyway."""

    kind: ClassVar[str] = "Excel"
    sheet: str

    def read(self) -> Iterator[JsonObject]:
        with _open(self.place) as book:
            yield from _records(book.get_sheet_by_name(self.sheet), self.place)


def survey(place: Place, encoding: str, rows_a_piece: int, part: str | None = None) -> Raw:
    """Finds the sheet (`part`, or the only one with rows) and counts its rows. Raises DataError."""
    with _open(place) as book:
        name, others = _choose(book, part, place)
        count = 0 if name is None else sum(1 for _ in _records(book.get_sheet_by_name(name), place))
    pieces = () if name is None else (Sheet(place=place, count=count, sheet=name),)
    notes = (f"{place}: the hidden sheets were not read: {', '.join(others)}",) if others else ()
    return Raw(str(place), None, count, pieces, notes)


def _open(place: Place) -> CalamineWorkbook:
    from python_calamine import CalamineError, CalamineWorkbook, PasswordError

    try:
        return CalamineWorkbook.from_path(place.path)
    except PasswordError as error:
        raise DataError(f"{place} is protected by a password; save it without one") from error
    except CalamineError as error:
        raise DataError(f"{place}: not a readable Excel or OpenDocument file ({error})") from error


def _choose(book: CalamineWorkbook, part: str | None, place: Place) -> tuple[str | None, list[str]]:
    """The sheet to read, and hidden ones with rows that are not. Raises DataError where it is not clear."""
    from python_calamine import SheetVisibleEnum

    if part is not None:
        if part not in book.sheet_names:
            hint = did_you_mean(part, book.sheet_names)
            raise DataError(f"{place} has no sheet '{part}'{hint}; its sheets: {', '.join(book.sheet_names)}")
        return part, []
    filled = [sheet for sheet in book.sheets_metadata if _has_rows(book.get_sheet_by_name(sheet.name))]
    seen = [sheet.name for sheet in filled if sheet.visible == SheetVisibleEnum.Visible]
    hidden = [sheet.name for sheet in filled if sheet.name not in seen]
    chosen = seen or hidden
    if len(chosen) > 1:
        written = ", ".join(f"{place}#{name}" for name in chosen)
        raise DataError(f"{place} has several sheets with rows; name the one that is meant: {written}")
    return (chosen[0] if chosen else None), (hidden if seen else [])


def _has_rows(sheet: CalamineSheet) -> bool:
    """Whether there is a row besides the names; a sheet with a title alone has none."""
    filled = (True for cells in sheet.iter_rows() if any(_value(cell) is not None for cell in cells))
    return next(filled, False) and next(filled, False)


def _records(sheet: CalamineSheet, place: Place) -> Iterator[JsonObject]:
    """Rows that are not empty; an empty cell is null."""
    names: dict[int, str] | None = None
    for number, cells in enumerate(sheet.iter_rows(), 1):
        values = {index: value for index, cell in enumerate(cells) if (value := _value(cell)) is not None}
        if not values:
            continue
        if names is None:
            names = _named(values, f"{place}#{sheet.name}, row {number}")
            continue
        astray = [index for index in values if index not in names]
        if astray:
            cell = f"{_letters(astray[0])}{number}"
            raise DataError(
                f"{place}#{sheet.name}: cell {cell} holds {str(values[astray[0]])[:40]!r}, but its column has no name; "
                f"the first row that is not empty must name all columns; found: {', '.join(names.values())}"
            )
        yield {name: values.get(index) for index, name in names.items()}


def _value(cell: Any) -> Any:
    """A cell as a JSON value. Excel stores every number as a float, so 3.0 is 3; dates become ISO text."""
    if isinstance(cell, str):
        return cell if cell.strip() else None
    if isinstance(cell, float):
        return int(cell) if cell.is_integer() and abs(cell) <= EXACT else cell
    if isinstance(cell, (datetime.datetime, datetime.date, datetime.time)):
        return cell.isoformat()
    return str(cell) if isinstance(cell, datetime.timedelta) else cell


def _named(values: dict[int, Any], where: str) -> dict[int, str]:
    names = {index: str(value).strip() for index, value in values.items()}
    twice = [name for name, times in Counter(names.values()).items() if times > 1]
    if twice:
        raise DataError(f"{where}: the column name '{twice[0]}' stands twice; found: {', '.join(names.values())}")
    return names


def _letters(index: int) -> str:
    """Excel's name of a column: A, B, … Z, AA."""
    letters = ""
    index += 1
    while index:
        index, left = divmod(index - 1, 26)
        letters = chr(ord("A") + left) + letters
    return letters
