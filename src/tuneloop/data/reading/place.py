"""Where the bytes of a source stand: a file, a packed file, or a member of an archive; and how its path is written."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

if TYPE_CHECKING:
    from zipfile import ZipFile

PACKED = ".gz"
HUB = "hf:"


@dataclass(frozen=True)
class Place:
    """A file, or one file in a .zip archive. Archives are read in place: nothing of them is written to disk."""

    path: str
    member: str | None = None
    """The file's name in the archive, for people."""
    stored: str | None = None
    """The same name as the archive's directory spells it."""

    def __str__(self) -> str:
        return self.path if self.member is None else f"{self.path}/{self.member}"

    @property
    def suffix(self) -> str:
        """The kind of file, by its name."""
        name = self.member or self.path.lower().removesuffix(PACKED)
        return Path(name).suffix.lower()

    @property
    def seekable(self) -> bool:
        """Whether a reader may begin anywhere; what is packed must be unpacked from its beginning."""
        return self.member is None and not self.path.lower().endswith(PACKED)

    def open(self, start: int = 0) -> IO[bytes]:
        """The bytes from `start` on."""
        if self.stored is not None:
            return _archive(self.path, Path(self.path).stat().st_mtime_ns, os.getpid()).open(self.stored)
        if not self.seekable:
            import gzip

            return cast(IO[bytes], gzip.open(self.path))
        file = open(self.path, "rb")  # noqa: SIM115 (the caller closes it)
        file.seek(start)
        return file

    def read(self) -> bytes:
        """All bytes."""
        with self.open() as file:
            return file.read()

    def is_empty(self) -> bool:
        """Whether there is not a single byte."""
        with self.open() as file:
            return not file.read(1)


@lru_cache(maxsize=2)
def _archive(path: str, changed: int, process: int) -> ZipFile:
    """An archive's directory is read once, not for each of its files. Forked processes share a file's position, so
    each opens its own."""
    from zipfile import ZipFile

    return ZipFile(path)


def split_part(path: str) -> tuple[str, str | None]:
    """A source's path and the part of it that is meant: `book.xlsx#Sheet2`, `folder#train`. Either may hold a '#'."""
    if "#" not in path or (not path.startswith(HUB) and Path(path).exists()):
        return path, None
    cuts = [index for index, letter in enumerate(path) if letter == "#"]
    cut = next((cut for cut in reversed(cuts) if Path(path[:cut]).exists()), cuts[-1])
    return path[:cut], path[cut + 1 :]
