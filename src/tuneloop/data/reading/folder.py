"""Folders: what `datasets.save_to_disk` wrote, and files of one kind that are parts of one data set (shards)."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from tuneloop.core import jsonl
from tuneloop.core.errors import DataError
from tuneloop.core.plugins import did_you_mean
from tuneloop.data.reading.place import PACKED, Place

ALL = "*"
SHOWN = 8


def files(folder: str, part: str | None, kinds: frozenset[str]) -> list[Place]:
    """The files of a folder that make up one source, in the order of their numbers. Raises DataError."""
    path = Path(folder)
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return _saved(path, part)
    groups = _groups(path, kinds)
    if not groups:
        held = sorted(child.name for child in path.iterdir() if not child.name.startswith("."))
        told = f"it holds {', '.join(held[:SHOWN])}" if held else "it is empty"
        raise DataError(f"{folder} is a folder without a file of the kinds {', '.join(sorted(kinds))}; {told}")
    if part is None and len(groups) > 1:
        names = sorted(groups)
        written = ", ".join(f"{folder}#{name}" for name in names[:SHOWN])
        raise DataError(
            f"{folder} is a folder with several data sets ({', '.join(names[:SHOWN])}); name the one that is meant: "
            f"{written}, or {folder}#{ALL} for all"
        )
    if part is not None and part != ALL and part not in groups:
        raise DataError(f"{folder} has no '{part}'{did_you_mean(part, groups)}; it has {', '.join(sorted(groups))}")
    chosen = [file for name in sorted(groups) if part in (None, ALL, name) for file in groups[name]]
    found = sorted({Place(str(file)).suffix for file in chosen})
    if len(found) > 1:
        raise DataError(f"{folder} holds files of several kinds ({', '.join(found)}); name each as a source of its own")
    return [Place(str(file)) for file in chosen]


def _saved(folder: Path, part: str | None) -> list[Place]:
    """The shards of one split of a saved data set, as its own lists give them."""
    if (folder / "dataset_dict.json").is_file():
        splits = [str(name) for name in _stated(folder / "dataset_dict.json", "splits")]
        if part is None and len(splits) > 1:
            written = ", ".join(f"{folder}#{name}" for name in splits)
            raise DataError(f"{folder} holds the splits {', '.join(splits)}; name the one that is meant: {written}")
        if part is not None and part not in splits:
            raise DataError(f"{folder} has no split '{part}'{did_you_mean(part, splits)}; it has {', '.join(splits)}")
        folder /= part or splits[0]
    elif part is not None:
        raise DataError(f"{folder} holds a single data set, no splits: write the path without '#{part}'")
    shards = [folder / Path(shard["filename"]).name for shard in _stated(folder / "state.json", "_data_files")]
    for shard in shards:
        if not shard.is_file():
            raise DataError(f"{folder} is not complete: {shard.name} is missing")
    return [Place(str(shard)) for shard in shards]


def _stated(file: Path, key: str) -> list[Any]:
    stated = jsonl.read(file) if file.is_file() else {}
    if not isinstance(stated, dict) or not isinstance(stated.get(key), list) or not stated[key]:
        raise DataError(f"{file} does not list '{key}' as `datasets.save_to_disk` writes it")
    return stated[key]


def _groups(folder: Path, kinds: frozenset[str]) -> dict[str, list[Path]]:
    """Files by the name that they share before their number: train-00000-of-00002.parquet belongs to train.

    Where the folder itself has none, its subfolders count; `data` is no name, as on the hub.
    """
    found = _data_files(folder, kinds)
    if not found:
        children = sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
        found = [file for child in children for file in _data_files(child, kinds)]
    groups: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(found, key=_natural):
        above = [] if file.parent in (folder, folder / "data") else [file.parent.name]
        stem = file.name.removesuffix(PACKED).rpartition(".")[0]
        groups["/".join([*above, *filter(None, [_shared_name(stem)])]) or "data"].append(file)
    return dict(groups)


def _data_files(folder: Path, kinds: frozenset[str]) -> list[Path]:
    listed = (child for child in folder.iterdir() if child.is_file() and not child.name.startswith((".", "_")))
    return [child for child in listed if Place(str(child)).suffix in kinds and child.name not in DESCRIPTIONS]


def _shared_name(stem: str) -> str:
    return re.sub(r"[-_.]?\d+(?:-of-\d+)?$", "", stem)


def _natural(path: Path) -> list[str | int]:
    """part2 before part10."""
    pieces = re.split(r"(\d+)", str(path))
    return [int(piece) if number % 2 else piece for number, piece in enumerate(pieces)]


DESCRIPTIONS = ("dataset_info.json", "dataset_infos.json", "state.json", "dataset_dict.json")
