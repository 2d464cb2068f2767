"""A file of Examples that need not be in memory: each is parsed when it is asked for."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import overload

from tuneloop.core import digest, jsonl
from tuneloop.core.conversation import Example
from tuneloop.core.errors import DataError


class ExampleFile(Sequence[Example]):
    """The Examples of a JSONL file that `tuneloop prepare` wrote. Raises DataError with file:line for what is none:
    for the first row when it is opened, for the others when they are read. The file may be deleted meanwhile."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise DataError(f"{path}: no such file; `tuneloop prepare RECIPE.yaml` writes it")
        self.path = path
        with path.open("rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""
        self._begins = list(self._lines())
        _ = self[:1]

    @cached_property
    def digest(self) -> str:
        """Of the file's bytes."""
        return digest.of_bytes(self._bytes)

    def __len__(self) -> int:
        return len(self._begins)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        begin = self._begins[index]
        end = self._bytes.find(b"\n", begin)
        try:
            return Example.from_json(jsonl.parse(self._bytes[begin : end if end >= 0 else None]))
        except ValueError as error:
            raise DataError(f"{self._place(begin)}: not valid JSON ({error})") from error
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{self._place(begin)}: not an Example as `tuneloop prepare` writes it ({error!r}); "
                "name raw files as sources under data: instead"
            ) from error

    def _lines(self) -> Iterator[int]:
        """Where each line begins that holds something."""
        begin = 0
        while begin < len(self._bytes):
            end = self._bytes.find(b"\n", begin)
            end = len(self._bytes) if end < 0 else end
            if self._bytes[begin : min(end, begin + 80)].strip() or self._bytes[begin:end].strip():
                yield begin
            begin = end + 1

    def _place(self, begin: int) -> str:
        number = self._bytes[:begin].count(b"\n") + 1
        return f"{self.path}:{number}"
