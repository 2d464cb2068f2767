"""Data sets of the Hugging Face hub, by the library `datasets`: fetched row by row into a file of our own, once.

Later passes read that file, so rows keep their numbers, and work without a network.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from tuneloop.core import digest, jsonl
from tuneloop.core.conversation import JsonObject
from tuneloop.core.errors import DataError, MissingExtra
from tuneloop.core.plugins import did_you_mean
from tuneloop.data.reading.parquet import plain_value
from tuneloop.data.reading.place import HUB
from tuneloop.models.cache import root

OPTIONS = ("config", "folder", "revision")


@dataclass(frozen=True)
class HubId:
    """`hf:org/name?config=main&folder=data/en&revision=v1#train`; all but the name may be left out."""

    written: str
    """As the recipe writes it, without the split."""
    name: str
    split: str | None
    options: dict[str, str]

    def __str__(self) -> str:
        return self.written


def parse_id(path: str, part: str | None) -> HubId:
    """Raises DataError for what is no such id."""
    name, _, query = path.removeprefix(HUB).partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    for key in options:
        if key not in OPTIONS:
            raise DataError(f"{path}: unknown option '{key}'{did_you_mean(key, OPTIONS)}; known: {', '.join(OPTIONS)}")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise DataError(f"{path}: write a hub data set as hf:org/name, with ?config=… and #split where it has several")
    return HubId(path, name, part, options)


def fetched(path: str, part: str | None, limit: int | None) -> tuple[Path, tuple[str, ...]]:
    """The local file with the rows, fetched if need be, and a note on how old it is. Raises DataError, MissingExtra."""
    wanted = parse_id(path, part)
    key = digest.short(digest.of_value([wanted.name, wanted.split, wanted.options, limit]))
    file = root() / "datasets" / f"{wanted.name.replace('/', '--')}-{key}.jsonl"
    if not file.is_file():
        jsonl.write_lines(file, _rows(wanted, limit))
        return file, ()
    day = datetime.date.fromtimestamp(file.stat().st_mtime).isoformat()
    return file, (f"{path}: as fetched on {day}; delete {file} to fetch it again",)


def _rows(wanted: HubId, limit: int | None) -> Iterator[JsonObject]:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtra("datasets", f"reading {wanted} from the hub", "datasets") from error
    config = wanted.options.get("config")
    options: dict[str, Any] = {"revision": wanted.options.get("revision")}
    if "folder" in wanted.options:
        options["data_dir"] = wanted.options["folder"]
    try:
        split = wanted.split or _only_split(datasets.get_dataset_split_names(wanted.name, config, **options), wanted)
        stream = datasets.load_dataset(wanted.name, config, split=split, streaming=True, **options).decode(False)
        for row in islice(stream, limit):
            yield {str(key): plain_value(value) for key, value in row.items()}
    except DataError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{wanted} could not be read from the hub: {error}") from error


def _only_split(splits: list[str], wanted: HubId) -> str:
    if len(splits) > 1:
        written = ", ".join(f"{wanted}#{name}" for name in splits)
        raise DataError(f"{wanted} has the splits {', '.join(splits)}; name the one that is meant: {written}")
    return splits[0]
