"""Shards: files of Examples between two passes, with what is known of every row as columns.

The lines are those of train.jsonl already, so the last pass copies bytes. Knows no step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tuneloop.core import jsonl
from tuneloop.core.conversation import Example, dump_all
from tuneloop.data.characters import count_words, scripts_of
from tuneloop.data.forms import prompt_keys
from tuneloop.texts.words import spoken

if TYPE_CHECKING:
    from tuneloop.data.steps import Keys

_AT_ONCE = 1_000
"""Rows that are read together and cut at their offsets, so that nobody looks for line ends."""


class Held(NamedTuple):
    """Rows in memory, and the lines that stand in the file, or would."""

    examples: list[Example]
    lines: list[bytes]


@dataclass
class Shard:
    """N Examples in memory or on disk. `offsets` [N + 1] are bytes; `columns` hold one entry a row."""

    path: Path
    offsets: np.ndarray
    columns: Keys = field(default_factory=dict[str, Any])
    held: Held | None = None
    """The rows, where there is room for them. They never go to another process: the file is written first."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return int(self.offsets[-1])

    def lines(self, indices: Iterable[int] | None = None) -> Iterator[bytes]:
        """The rows as they stand in the file, all or those of some indices."""
        if self.held is not None:
            yield from self.held.lines if indices is None else (self.held.lines[index] for index in indices)
            return
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
            rows = self.held.examples
            return iter(rows) if indices is None else (rows[index] for index in indices)
        return (Example.from_json(jsonl.parse_dumped(line)) for line in self.lines(indices))

    def let_go(self) -> None:
        """Keeps the rows in the file alone."""
        self._write()
        self.held = None

    def remove(self) -> None:
        """Removes the rows from the disk and from memory."""
        self.path.unlink(missing_ok=True)
        self.held = None

    def _write(self) -> None:
        if self.held is not None and not self.path.exists():
            self.path.write_bytes(b"".join(self.held.lines))

    def __getstate__(self) -> dict[str, Any]:
        self._write()
        return {**self.__dict__, "held": None}


class Writer:
    """Makes a shard, some rows at a time. Its file is written where it is let go of or goes to another process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._columns: list[Keys] = []
        self._held = Held([], [])

    def add(self, examples: Sequence[Example], lines: Sequence[bytes], columns: Keys) -> None:
        """Rows with their lines and columns."""
        self._columns.append(columns)
        self._held.examples.extend(examples)
        self._held.lines.extend(lines)

    def shard(self) -> Shard:
        """What was added, which were at least the columns of no rows."""
        offsets = np.cumsum([0, *map(len, self._held.lines)])
        columns = {name: np.concatenate([part[name] for part in self._columns]) for name in self._columns[0]}
        return Shard(self._path, offsets, columns, self._held)


def lines_of(examples: Sequence[Example], known: Sequence[bytes | None]) -> list[bytes]:
    """The lines of rows, those known from an earlier shard as they are. Their ids are found on the way."""
    new = iter(dump_all([example for example, line in zip(examples, known, strict=True) if line is None]))
    return [next(new) + b"\n" if line is None else line for line in known]


PLACES = ("id", "row")


def places(examples: Sequence[Example]) -> Keys:
    """PLACES, the columns that name a row: its id as a number and its row in the source."""
    return {
        "id": np.array([int(example.id, 16) for example in examples], np.uint64),
        "row": np.array([example.origin.row for example in examples], np.uint32),
    }


def described(examples: Sequence[Example]) -> Keys:
    """What split and card need to know of every row."""
    prompts = [example.prompt for example in examples]
    asked = ["\n".join([spoken(message) for message in prompt]) for prompt in prompts]
    answered = [spoken(example.answer) for example in examples]
    words = count_words([*asked, *answered]).astype(np.int32)
    keys = prompt_keys([prompt or example.messages for prompt, example in zip(prompts, examples, strict=True)])
    return {
        "prompt_key": np.frombuffer(b"".join([key[:8] for key in keys]), ">u8").astype(np.uint64),
        "language": np.array(_languages(examples), "U8"),
        "prompt_words": words[: len(examples)],
        "answer_words": words[len(examples) :],
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
