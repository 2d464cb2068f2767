"""Data steps, one file each: what a row must be like to stay, and what is repaired in it.

Two kinds. A row step looks at one row at a time. A set step compares rows with one another: it sees a small key of each
row, computed shard by shard, and decides over all keys at once, so that a million rows need not be in memory.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tuneloop.core.conversation import Example, JsonObject
from tuneloop.core.plugins import Family, Plugin

if TYPE_CHECKING:
    import numpy as np

    Keys = dict[str, np.ndarray]


@dataclass(frozen=True)
class Rejection:
    """Why a row leaves: a reason that a person understands (the same words for the same cause), and the evidence."""

    reason: str
    evidence: JsonObject = field(default_factory=dict[str, Any])


class Step(Plugin, ABC):
    """One check or repair of the sources' rows. Deterministic."""

    def files(self) -> list[str]:
        """Files and folders of its options that the result depends on: their contents belong to the run's key."""
        return []

    def redact(self, value: JsonObject) -> JsonObject:
        """What may be written of a row that left, whichever step dropped it, or be shown of one that was read. Nothing
        is hidden by default; the same object says that nothing was."""
        return value

    def may_redact(self, lines: Sequence[bytes]) -> Sequence[bool]:
        """Whether `redact` may hide something in the object that each line holds; others are not even parsed. Override
        it where one glance at all of them tells for most."""
        return [True] * len(lines)


class RowStep(Step):
    """A step that needs to see one row only."""

    @abstractmethod
    def look(self, example: Example) -> Example | Rejection:
        """The same Example; a new one, which counts as repaired where messages or tools differ; or why it leaves.

        Called once a row, in several processes: compile patterns and read files in module-level cached functions. Never
        change the Example that is given: a row that comes back as the same object is not written anew.
        """

    def look_all(self, examples: Sequence[Example]) -> Sequence[Example | Rejection]:
        """`look` for each of some hundred rows. Override it where one glance at all of them spares most looks."""
        return [self.look(example) for example in examples]


@dataclass(frozen=True)
class Rows:
    """The rows that a set step decides over: those still there, in the order of the sources.

    `keys` are the step's own arrays, one entry a row. `place(i)` is {"id", "origin"} of row i, for evidence.
    `read` brings a few rows back whole (from disk: thousands, not millions).
    """

    keys: Keys
    count: int
    place: Callable[[int], JsonObject]
    read: Callable[[Sequence[int]], list[Example]]

    def __len__(self) -> int:
        return self.count


@dataclass
class Verdict:
    """What a set step decides; rows are named by their index in `Rows`."""

    rejected: Mapping[int, Rejection] = field(default_factory=dict[int, Rejection])
    clusters: np.ndarray | None = None
    """int64, one a row: rows with the same number say nearly the same, and the split keeps them together."""
    repeats: Mapping[int, int] = field(default_factory=dict[int, int])
    """How often a row stands in train.jsonl where that is not once; never in val or test."""
    findings: Sequence[JsonObject] = ()
    """For the data card, made by `data.findings.finding`."""


class SetStep(Step):
    """A step that compares rows with one another."""

    def key_options(self) -> JsonObject:
        """The options that the keys depend on, by default all: steps of one kind that agree in them share keys."""
        return self.model_dump(mode="json")

    @abstractmethod
    def keys(self, examples: Sequence[Example]) -> Keys:
        """Arrays with one entry a row (first dimension), for one shard; a few hundred bytes a row at most."""

    @abstractmethod
    def decide(self, rows: Rows) -> Verdict:
        """The verdict over all rows at once."""


STEPS: Family[Step] = Family("steps", __name__, Step)
