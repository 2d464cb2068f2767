"""The facts, and what several questions read from the sample: made once, when the first of them asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import polars as pl

from tuneloop.core.conversation import Example, JsonObject
from tuneloop.data.audit.near import Near, near
from tuneloop.data.facts import SPLITS, Facts
from tuneloop.texts.words import spoken


@dataclass(frozen=True)
class Row:
    """A row of the sample with its texts."""

    example: Example
    split: str
    language: str
    label: str | None
    cluster: int | None
    asked: str
    """The first user message: the task as it was put; empty for documents."""
    said: str
    """All that stands before the answer, without system messages, which many rows share."""
    prompt: str
    """All that stands before the answer."""
    answer: str

    @property
    def place(self) -> JsonObject:
        """Where to find the row, for evidence."""
        origin = self.example.origin
        return {"id": self.example.id, "source": origin.source, "row": origin.row, "split": self.split}


class Reading:
    """The data as the questions see it."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.table = facts.table
        self.splits = [*SPLITS, *sorted(set(facts.shares) - set(SPLITS))]

    @cached_property
    def rows(self) -> list[Row]:
        """The sample."""
        known = self._of_table()
        return [
            Row(example, split, *facts, *_texts(example))
            for (split, example), facts in zip(self.facts.sample, known, strict=True)
        ]

    @property
    def whole(self) -> bool:
        """Whether the sample is all kept rows."""
        return len(self.facts.sample) == self.table.height

    def some(self, most: int) -> list[Row]:
        """At most so many rows of the sample, evenly spread, for questions that cost more per row."""
        return spread(self.rows, most)

    @cached_property
    def near(self) -> Near:
        """Which rows of the sample ask nearly the same; for documents, say nearly the same."""
        return near([row.said or row.answer for row in self.rows])

    def _of_table(self) -> list[tuple[str, str | None, int | None]]:
        """(language, label, cluster) of each row of the sample. Of a file read twice any line will do."""
        origins = [example.origin for _, example in self.facts.sample]
        places = pl.DataFrame(
            {"source": [origin.source for origin in origins], "row": [origin.row for origin in origins]},
            schema={"source": pl.String, "row": pl.UInt32},
        )
        wanted = self.table.select("source", "row", "language", "label", "cluster")
        wanted = wanted.join(places, on=["source", "row"], how="semi").unique(["source", "row"], keep="first")
        found = places.join(wanted, on=["source", "row"], how="left", maintain_order="left")
        return [(language or "unknown", label, cluster) for _, _, language, label, cluster in found.iter_rows()]


def _texts(example: Example) -> tuple[str, str, str, str]:
    before = example.prompt
    asked = next((message.content for message in before if message.role == "user"), "")
    said = "\n".join(spoken(message) for message in before if message.role != "system")
    system = "\n".join(message.content for message in before if message.role == "system")
    return asked, said, f"{system}\n{said}" if system else said, spoken(example.answer)


def spread(rows: Sequence[Row], most: int) -> list[Row]:
    """At most so many, evenly spread."""
    if len(rows) <= most:
        return list(rows)
    return [rows[index * len(rows) // most] for index in range(most)]
