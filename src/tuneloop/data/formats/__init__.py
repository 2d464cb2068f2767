"""Data formats, one file each: how a raw record of a file becomes the messages of an Example."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from tuneloop.core.conversation import JsonObject, Message
from tuneloop.core.plugins import Family, Plugin


@dataclass(frozen=True)
class Parts:
    """What a format makes of a record. `notes` say what it decided on the way; the card counts them."""

    messages: tuple[Message, ...]
    tools: tuple[JsonObject, ...] = ()
    meta: JsonObject = field(default_factory=dict[str, Any])
    notes: tuple[str, ...] = ()
    rejected: tuple[Message, ...] = ()
    """A worse answer in place of the last supervised message."""


class RowError(Exception):
    """A record that cannot become an Example. It is caught where the row is read and becomes a Drop with the reason."""

    def __init__(self, reason: str, **evidence: Any) -> None:
        super().__init__(reason)
        self.reason, self.evidence = reason, evidence


class Format(Plugin, ABC):
    """One shape of raw records."""

    @abstractmethod
    def parse(self, record: JsonObject) -> Parts:
        """The conversation that a record holds; columns that it does not read become meta. Raises RowError."""

    @abstractmethod
    def likeness(self, record: JsonObject) -> float:
        """From 0 (another format) to 1 (surely this one), by the record's shape alone; never raises."""

    joins: ClassVar[bool] = False
    """Whether `join` has anything to do; it then needs all records of a source at once, in memory."""

    def join(self, records: Iterable[JsonObject]) -> Iterable[JsonObject]:
        """The records with those joined that describe one row, wherever they stand; a joined record is one row of the
        ledger. Default: as they are."""
        return records

    def informed(self, rows: Iterable[JsonObject]) -> Self:
        """This format knowing what only all rows of a source show together; default: there is nothing to know."""
        return self

    def recognise(self, records: Sequence[JsonObject]) -> float:
        """The mean likeness of some records: how sure `format: auto` may be."""
        return sum(self.likeness(record) for record in records) / max(1, len(records))


FORMATS: Family[Format] = Family("formats", __name__, Format)
