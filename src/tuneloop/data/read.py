"""Raw records from files: JSON, JSONL, CSV, TSV, Parquet and text, each value exactly as the file holds it.

No schema is inferred: readers that do unify the arguments of different tool calls into one struct full of nulls.
Knows nothing of what the columns mean.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tuneloop.core import jsonl
from tuneloop.core.conversation import JsonObject
from tuneloop.core.errors import DataError
from tuneloop.core.plugins import did_you_mean
from tuneloop.data.encoding import decode


@dataclass(frozen=True)
class Raw:
    """The records of a file; their index is the row number. `encoding` is None for Parquet."""

    records: list[JsonObject]
    encoding: str | None


def read(path: str, encoding: str = "auto") -> Raw:
    """All records of a file. Raises DataError: missing, empty, corrupt (with the line), of unknown kind or encoding."""
    file = existing(path)
    suffix = file.suffix.lower()
    if suffix not in (*_READERS, ".parquet"):
        raise DataError(f"{path}: unknown kind of file '{suffix}'; known: {', '.join([*_READERS, '.parquet'])}")
    if file.stat().st_size == 0:
        raise DataError(f"{path} is empty: 0 bytes")
    if suffix == ".parquet":
        records, used = _parquet(file), None
    else:
        text, used = decode(file.read_bytes(), path, encoding)
        records = list(_READERS[suffix](text, path))
    if not records:
        raise DataError(f"{path} holds no rows")
    return Raw(records, used)


def existing(path: str) -> Path:
    """The file at a path. Raises DataError saying what stands there instead."""
    file = Path(path)
    if file.is_dir():
        names = sorted(child.name for child in file.iterdir() if child.suffix.lower() in (*_READERS, ".parquet"))
        held = f"it holds {', '.join(names[:8])}" if names else "it holds no data file"
        raise DataError(f"{path} is a folder; name each file as a source of its own ({held})")
    if not file.is_file():
        parent = next(folder for folder in [*file.absolute().parents] if folder.is_dir())
        names = sorted(child.name for child in parent.iterdir() if not child.name.startswith("."))
        more = ", …" if len(names) > 8 else ""
        there = f"{parent} holds {', '.join(names[:8])}{more}" if names else f"{parent} is empty"
        raise DataError(f"{path}: no such file{did_you_mean(file.name, names)}; {there}")
    return file


def _jsonl(text: str, path: str) -> Iterator[JsonObject]:
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines: U+2028 is no line end in JSON
        if line.strip():
            yield _record(line, f"{path}:{number}")


def _record(line: str, place: str) -> JsonObject:
    try:
        value = jsonl.parse(line)
    except json.JSONDecodeError as error:
        fault = f"{error.msg} at column {error.colno}"
        raise DataError(f"{place}: not valid JSON ({fault}). The line begins: {line[:60]!r}") from error
    except RecursionError as error:
        raise DataError(f"{place}: JSON nested too deeply to be data") from error
    if not isinstance(value, dict):
        raise DataError(f"{place}: expected a JSON object, found {type(value).__name__}: {line[:60]!r}")
    return cast(JsonObject, value)


def _json(text: str, path: str) -> Iterator[JsonObject]:
    if not text.strip():
        return
    try:
        value = jsonl.parse(text)
    except json.JSONDecodeError as error:
        if _is_object(text.lstrip().split("\n", 1)[0]):  # JSON Lines in a file called .json
            yield from _jsonl(text, path)
            return
        raise DataError(f"{path}:{error.lineno}: not valid JSON ({error.msg} at column {error.colno})") from error
    except RecursionError as error:
        raise DataError(f"{path}: JSON nested too deeply to be data") from error
    if isinstance(value, dict):
        inner = [key for key, rows in value.items() if isinstance(rows, list) and rows and isinstance(rows[0], dict)]
        if len(value) == 1 and inner and inner[0] not in ("messages", "conversations", "conversation"):
            raise DataError(f"{path}: the rows stand under the key '{inner[0]}'; write that list to a file of its own")
        value = [value]
    if not isinstance(value, list):
        raise DataError(f"{path}: expected an array of objects, found {type(value).__name__}")
    for number, record in enumerate(cast("list[Any]", value)):
        if not isinstance(record, dict):
            raise DataError(f"{path}: element {number} is no object but {type(record).__name__}: {str(record)[:60]!r}")
        yield record


def _is_object(line: str) -> bool:
    try:
        return isinstance(jsonl.parse(line), dict)
    except json.JSONDecodeError:
        return False


def _csv(text: str, path: str) -> Iterator[JsonObject]:
    header = text.split("\n", 1)[0]
    delimiter = ";" if ";" in header and "," not in header else ","  # Excel writes ; in many countries
    limit = csv.field_size_limit(sys.maxsize)  # the default is an error for a field of 128 KB
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        yield from _rows(lines, lambda: lines.line_num, path, "Put quotes around a field that holds the separator.")
    except csv.Error as error:
        raise DataError(f"{path}:{lines.line_num}: not valid CSV ({error})") from error
    finally:
        csv.field_size_limit(limit)


def _tsv(text: str, path: str) -> Iterator[JsonObject]:
    """Without quoting: a quote is a character like any other, as in GLUE's files."""
    number = 0

    def split() -> Iterator[list[str]]:
        nonlocal number
        for line in text.split("\n"):
            number += 1
            yield line.removesuffix("\r").split("\t") if line.strip("\r") else []

    return _rows(split(), lambda: number, path, "A field of a TSV file holds neither a tab nor a line break.")


def _rows(lines: Iterator[list[str]], line: Callable[[], int], path: str, advice: str) -> Iterator[JsonObject]:
    """Fields under the names of the first line; all values stay text ("01" is not 1)."""
    names = [name.strip() for name in next(lines, [])]
    for name in names:
        if not name or names.count(name) > 1:
            fault = f"the column name '{name}' stands twice" if name else "a column has no name"
            raise DataError(f"{path}:1: {fault}. The first line must name the columns; found: {names}")
    for fields in lines:
        if not fields:
            continue
        if len(fields) != len(names):
            shown = " | ".join(fields)[:80]
            raise DataError(f"{path}:{line()}: {len(fields)} fields, but {len(names)} columns. {advice} Found: {shown}")
        yield dict(zip(names, fields, strict=True))


def _txt(text: str, path: str) -> Iterator[JsonObject]:
    """Documents are separated by blank lines."""
    for document in re.split(r"\n[ \t]*(?:\n[ \t]*)+", text.replace("\r\n", "\n")):
        if document.strip():
            yield {"text": document.strip("\n")}


def _parquet(file: Path) -> list[JsonObject]:
    import polars as pl

    try:
        frame = pl.read_parquet(file)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{file}: not a readable Parquet file ({error})") from error
    plain = (pl.String, pl.Boolean)
    odd = [name for name, kind in frame.schema.items() if not (kind in plain or kind.is_integer() or kind.is_float())]
    records = frame.to_dicts()
    for record in records:
        for name in odd:
            record[name] = _plain(record[name])
    return records


def _plain(value: Any) -> Any:
    """A Parquet cell as a JSON value: dates and decimals become text, structs lose the nulls that unify them."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    return value if value is None or isinstance(value, (str, bool, int, float)) else str(value)


_READERS: dict[str, Callable[[str, str], Iterator[JsonObject]]] = {
    ".jsonl": _jsonl, ".ndjson": _jsonl, ".json": _json, ".csv": _csv, ".tsv": _tsv, ".txt": _txt,
}  # fmt: skip
