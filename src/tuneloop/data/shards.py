"""Shards: files of Examples between two passes, with what is known of every row as columns.

The lines are those of train.jsonl already, so the last pass copies bytes. Knows no step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from tuneloop.core import jsonl
from tuneloop.core.conversation import Example
from tuneloop.data.characters import count_words, scripts_of
from tuneloop.texts.words import prompt_key, spoken

if TYPE_CHECKING:
    from tuneloop.data.steps import Keys

_AT_ONCE = 1_000
"""Rows that are read together and cut at their offsets, so that nobody looks for line ends."""


@dataclass
class Shard:
    """N Examples on disk. `offsets` [N + 1] are bytes; `columns` hold one entry a row."""

    path: Path
    offsets: np.ndarray
    columns: Keys = field(default_factory=dict[str, Any])
    held: list[Example] | None = None
    """The Examples themselves, where there is room for them; they never go to another process."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return int(self.offsets[-1])

    def lines(self, indices: Iterable[int] | None = None) -> Iterator[bytes]:
        """The rows as they stand in the file, all or those of some indices."""
        with self.path.open("rb") as file:
            for start in range(0, len(self), _AT_ONCE) if indices is None else ():
                borders = self.offsets[start : start + _AT_ONCE + 1].tolist()
                data = file.read(borders[-1] - borders[0])
                yield from [data[one - borders[0] : end - borders[0]] for one, end in pairwise(borders)]
            for index in () if indices is None else indices:
                file.seek(int(self.offsets[index]))
                yield file.read(int(self.offsets[index + 1] - self.offsets[index]))

    def examples(self, indices: Iterable[int] | None = None) -> Iterator[Example]:
        """The rows as Examples."""
        if self.held is not None:
            return iter(self.held) if indices is None else (self.held[index] for index in indices)
        return (Example.from_json(jsonl.parse_dumped(line)) for line in self.lines(indices))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "held": None}


class Writer:
    """Writes a shard, some rows at a time."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, path.open("wb")
        self._sizes: list[int] = []
        self._columns: list[Keys] = []
        self._held: list[Example] = []

    def add(self, examples: Sequence[Example], lines: Sequence[bytes], columns: Keys) -> None:
        """Rows with their lines and columns."""
        self._file.write(b"".join(lines))
        self._sizes += map(len, lines)
        self._columns.append(columns)
        self._held += examples

    def shard(self) -> Shard:
        """What was added, which were at least the columns of no rows."""
        offsets = np.zeros(len(self._sizes) + 1, np.int64)
        np.cumsum(self._sizes, out=offsets[1:])
        columns = {name: np.concatenate([part[name] for part in self._columns]) for name in self._columns[0]}
        return Shard(self._path, offsets, columns, self._held)

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def lines_of(examples: Sequence[Example], known: Sequence[bytes | None]) -> list[bytes]:
    """The lines of rows, those known from an earlier shard as they are. Their ids are found on the way."""
    return [example.dumped() + b"\n" if line is None else line for example, line in zip(examples, known, strict=True)]


PLACES = ("id", "row")


def places(examples: Sequence[Example]) -> Keys:
    """PLACES, the columns that name a row: its id as a number and its row in the source."""
    return {
        "id": np.array([int(example.id, 16) for example in examples], np.uint64),
        "row": np.array([example.origin.row for example in examples], np.uint32),
    }


def described(examples: Sequence[Example]) -> Keys:
    """What split and card need to know of every row."""
    prompts = ["\n".join(map(spoken, example.prompt)) for example in examples]
    return {
        "prompt_key": np.array([int.from_bytes(prompt_key(example)[:8]) for example in examples], np.uint64),
        "language": np.array(_languages(examples), "U8"),
        "prompt_words": count_words(prompts).astype(np.int32),
        "answer_words": count_words([spoken(example.answer) for example in examples]).astype(np.int32),
        "label": np.array([label_of(example) for example in examples], np.object_),
        "parents": np.array([" ".join(example.origin.parents) for example in examples], np.object_),
    }


def _languages(examples: Sequence[Example]) -> list[str]:
    """What the data or a step says of each, else the writing that carries most of the conversation."""
    stated = [example.meta.get("language") for example in examples]
    out = [one if isinstance(one, str) else "" for one in stated]
    rows = [row for row, language in enumerate(out) if not language]
    texts = [
        "\n".join([message.content for message in examples[row].messages if message.role != "system"]) for row in rows
    ]
    for row, script in zip(rows, scripts_of(texts), strict=True):
        out[row] = script
    return out


def label_of(example: Example) -> str:
    """meta's label as text; '' where there is none. Nested labels are written a/b."""
    label = example.meta.get("label")
    if label is None:
        return ""
    return "/".join(map(str, label)) if isinstance(label, list) else str(label)
