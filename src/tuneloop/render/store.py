"""Rendered rows kept for the next run: arrays in the cache folder under a digest of all that they follow from.

Knows nothing of how rows are made. A folder is whole or not there, its files are checked when they are read, and the
longest unused ones go when all together take more than `LIMIT` bytes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneloop.core import digest, jsonl
from tuneloop.core.errors import DataError
from tuneloop.models import cache
from tuneloop.render.flat import ARRAYS, FlatRows

if TYPE_CHECKING:
    from numpy.typing import NDArray

LIMIT = 4 << 30
FORMAT = 1


@dataclass(frozen=True)
class Kept:
    """Row sets by name, and what else is to be known of them (JSON)."""

    sets: Mapping[str, FlatRows]
    about: dict[str, Any]


def folder_of(made_from: Mapping[str, Any]) -> Path:
    """Where the rows lie that follow from these values (JSON)."""
    key = digest.of_value({"format": FORMAT, "from": dict(made_from)})
    return _root() / digest.short(key, 32)


def read(folder: Path) -> Kept | None:
    """The rows of a folder, mapped; None where there are none. Raises DataError where its files are not those that
    were written."""
    if not folder.is_dir():
        return None
    try:
        record = jsonl.read(folder / "about.json")
        for name, known in record["files"].items():
            if digest.of_file(folder / name) != known:
                raise DataError(f"{folder / name} is damaged")
        sets = {
            name: FlatRows({array: _mapped(folder / f"{name}.{array}.npy") for array in ARRAYS})
            for name in record["sets"]
        }
    except (DataError, OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder} is damaged: {error}") from error
    os.utime(folder)  # used now
    return Kept(sets, record["about"])


def write(folder: Path, kept: Kept) -> None:
    """Keeps rows. Raises OSError when the disk is full."""
    import numpy as np

    with cache.building(folder) as new:
        for name, rows in kept.sets.items():
            for array, values in rows.arrays.items():
                np.save(new / f"{name}.{array}.npy", values, allow_pickle=False)
        files = {path.name: digest.of_file(path) for path in sorted(new.iterdir())}
        jsonl.write(new / "about.json", {"files": files, "sets": list(kept.sets), "about": kept.about})
    cache.make_room(_root(), LIMIT, spared=folder)


def _mapped(path: Path) -> NDArray[Any]:
    """Numbers only: open_memmap refuses pickled objects. A view, as np.memmap is slow in giving pieces of itself."""
    import numpy as np

    return np.lib.format.open_memmap(path, mode="r").view(np.ndarray)


def _root() -> Path:
    return cache.root() / "rows"
