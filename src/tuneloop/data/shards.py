"""Shards: files of Examples between two passes, with what is known of every row as columns.

The lines are those of train.jsonl already, so the last pass copies bytes. Knows no step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tuneloop.core import jsonl
from tuneloop.core.conversation import Example
from tuneloop.data.words import count_words, prompt_key, script_of, spoken

if TYPE_CHECKING:
    from tuneloop.data.steps import Keys


@dataclass
class Shard:
    """N Examples on disk. `offsets` [N + 1] are bytes; `columns` hold one entry a row."""

    path: Path
    offsets: np.ndarray
    columns: Keys = field(default_factory=dict[str, Any])

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def lines(self, indices: Iterable[int] | None = None) -> Iterator[bytes]:
        """The rows as they stand in the file, all or those of some indices."""
        with self.path.open("rb") as file:
            if indices is None:
                yield from file
                return
            for index in indices:
                file.seek(int(self.offsets[index]))
                yield file.read(int(self.offsets[index + 1] - self.offsets[index]))

    def examples(self, indices: Iterable[int] | None = None) -> Iterator[Example]:
        """The rows as Examples."""
        for line in self.lines(indices):
            yield Example.from_json(jsonl.parse(line))


def write(path: Path, examples: Sequence[Example], columns: Keys) -> Shard:
    """Writes Examples as a shard."""
    lines = [jsonl.dump(example.to_json()) + b"\n" for example in examples]
    path.write_bytes(b"".join(lines))
    offsets = np.zeros(len(lines) + 1, np.int64)
    np.cumsum([len(line) for line in lines], out=offsets[1:])
    return Shard(path, offsets, columns)


def places(examples: Sequence[Example]) -> Keys:
    """The columns that name a row: its id as a number and its row in the source."""
    return {
        "id": np.array([int(example.id, 16) for example in examples], np.uint64),
        "row": np.array([example.origin.row for example in examples], np.uint32),
    }


def described(examples: Sequence[Example]) -> Keys:
    """What split and card need to know of every row."""
    prompts = [[spoken(message) for message in example.prompt] for example in examples]
    answers = [spoken(example.answer) for example in examples]
    return {
        "prompt_key": np.array([int.from_bytes(prompt_key(example)[:8]) for example in examples], np.uint64),
        "language": np.array([language_of(example) for example in examples], "U8"),
        "prompt_words": np.array([sum(map(count_words, texts)) for texts in prompts], np.int32),
        "answer_words": np.array([count_words(answer) for answer in answers], np.int32),
        "label": np.array([label_of(example) for example in examples], np.object_),
        "parents": np.array([" ".join(example.origin.parents) for example in examples], np.object_),
    }


def language_of(example: Example) -> str:
    """What the data or a step says, else the writing that carries most of the conversation."""
    stated = example.meta.get("language")
    if isinstance(stated, str) and stated:
        return stated
    return script_of("\n".join(message.content for message in example.messages if message.role != "system"))


def label_of(example: Example) -> str:
    """meta's label as text; '' where there is none. Nested labels are written a/b."""
    label = example.meta.get("label")
    if label is None:
        return ""
    return "/".join(map(str, label)) if isinstance(label, list) else str(label)
