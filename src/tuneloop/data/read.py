"""Opens a source of raw data, whatever its kind: files, packed files, archives, folders, hub data sets.

Knows nothing of what the columns mean.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from tuneloop.core.errors import DataError
from tuneloop.core.plugins import did_you_mean
from tuneloop.data.reading import (
    Piece,
    Raw,
    archive,
    arrow,
    csv,
    excel,
    folder,
    hub,
    json_file,
    json_lines,
    parquet,
    text,
)
from tuneloop.data.reading.joined import join
from tuneloop.data.reading.place import HUB, PACKED, Place, split_part

__all__ = ["Piece", "Raw", "existing", "input_files", "open_source"]

TEXTS: dict[str, Callable[[Place, str, int], Raw]] = {
    ".jsonl": json_lines.survey, ".ndjson": json_lines.survey, ".json": json_file.survey,
    ".csv": csv.survey_csv, ".tsv": csv.survey_tsv, ".txt": text.survey,
}  # fmt: skip
TABLES: dict[str, Callable[[Place, str, int], Raw]] = {
    ".parquet": parquet.survey, ".arrow": arrow.survey,
    ".xlsx": excel.survey, ".xlsm": excel.survey, ".xls": excel.survey, ".ods": excel.survey,
}  # fmt: skip
ARCHIVE = ".zip"
PARTS = {".json": json_file.survey, **{kind: excel.survey for kind, how in TABLES.items() if how is excel.survey}}
"""Files of which a part can be named: `book.xlsx#Sheet2`, `data.json#rows`."""
SHOWN = 8


def open_source(path: str, encoding: str = "auto", *, rows_a_piece: int = 20_000, limit: int | None = None) -> Raw:
    """Surveys a source: counts its rows and finds the borders of its pieces, without keeping rows in memory.

    `path` may name a part: `book.xlsx#Sheet2`, `data.json#rows`, `folder#train`, `hf:org/name#train`. Of a hub data
    set only the first `limit` rows are fetched; other sources are surveyed whole. Raises DataError: missing, empty,
    of unknown kind or encoding, or not of the form that its name says; and MissingExtra.
    """
    name, part = split_part(path)
    if name.startswith(HUB):
        file, notes = hub.fetched(name, part, limit)
        raw = join(path, [json_lines.survey(Place(str(file)), "utf-8", rows_a_piece)], rows_a_piece, notes)
    else:
        found = existing(path)
        try:
            raw = _open_local(found, path, part, encoding, rows_a_piece)
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError) as error:
            raise DataError(f"{path} cannot be read: {error}") from error
    if not raw.rows:
        raise DataError(f"{path} holds no rows")
    return raw


def existing(path: str) -> Path:
    """The file or folder of a local source. Raises DataError saying what stands there instead."""
    file = Path(split_part(path)[0])
    if not file.exists():
        parent = next(above for above in file.absolute().parents if above.is_dir())
        names = sorted(child.name for child in parent.iterdir() if not child.name.startswith("."))
        more = ", …" if len(names) > SHOWN else ""
        there = f"{parent} holds {', '.join(names[:SHOWN])}{more}" if names else f"{parent} is empty"
        raise DataError(f"{file}: no such file{did_you_mean(file.name, names)}; {there}")
    return file


def input_files(path: str, limit: int | None = None) -> list[Path]:
    """The files whose bytes decide what a source holds. A hub data set is fetched. Raises DataError, MissingExtra."""
    name, part = split_part(path)
    if name.startswith(HUB):
        return [hub.fetched(name, part, limit)[0]]
    found = existing(path)
    return [Path(place.path) for place in _members(found, part)] if found.is_dir() else [found]


def _open_local(found: Path, path: str, part: str | None, encoding: str, rows_a_piece: int) -> Raw:
    if found.is_dir():
        places = _members(found, part)
        files = [_open_file(place, str(place), None, encoding, rows_a_piece) for place in places]
        return join(path, files, rows_a_piece)
    if found.suffix.lower() == ARCHIVE:
        if part is not None:
            raise DataError(f"{path}: no part of a zip archive can be named; unpack it to read one of its files")
        _reject_empty(Place(str(found)), path)
        places, notes = archive.members(str(found), frozenset(TEXTS))
        filled = [place for place in places if not place.is_empty()]  # a member who annotated nothing is no error
        files = [TEXTS[place.suffix](place, encoding, rows_a_piece) for place in filled]
        return join(path, files, rows_a_piece, notes)
    return _open_file(Place(str(found)), path, part, encoding, rows_a_piece)


def _open_file(place: Place, path: str, part: str | None, encoding: str, rows_a_piece: int) -> Raw:
    how = (TEXTS if place.path.lower().endswith(PACKED) else {**TEXTS, **TABLES}).get(place.suffix)
    if how is None:
        known = ", ".join([*TEXTS, *TABLES, ARCHIVE])
        raise DataError(f"{path}: unknown kind of file '{Path(place.path).suffix.lower()}'; known: {known}")
    if part is not None and place.suffix not in PARTS:
        raise DataError(f"{path}: a {place.suffix} file has no parts; write the path without '#{part}'")
    _reject_empty(place, path)
    return PARTS[place.suffix](place, encoding, rows_a_piece, part) if part else how(place, encoding, rows_a_piece)


def _reject_empty(place: Place, path: str) -> None:
    if place.is_empty():
        raise DataError(f"{path} is empty: 0 bytes")


def _members(path: Path, part: str | None) -> list[Place]:
    return folder.files(str(path), part, frozenset({**TEXTS, **TABLES}))
