"""The interface of the audit's questions. A question is measured once, judged, and shown from what was measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from tuneloop.core.conversation import JsonObject
from tuneloop.data.audit.blocks import Block
from tuneloop.data.audit.reading import Reading


class Question(ABC):
    """One question about the data. `judge` and `show` see only the section, so that a card can be shown again."""

    name: ClassVar[str]
    """Its section in card.json."""
    title: ClassVar[str]
    about: ClassVar[str]
    """What a reader should know to read the section, in one or two sentences."""
    unchecked: ClassVar[str] = "no row is left"
    """Why `measure` gives None: the card says so, so that nobody takes it for a check that found nothing."""

    @abstractmethod
    def measure(self, data: Reading) -> JsonObject | None:
        """The section for card.json, or None where there is nothing to measure: `unchecked`."""

    def section(self, card: JsonObject) -> JsonObject | None:
        """What `judge` and `show` get: the section of a card, also of one read back from its file."""
        return card.get(self.name)

    def judge(self, section: JsonObject) -> list[JsonObject]:
        """Findings, each with what to do next."""
        return []

    @abstractmethod
    def show(self, section: JsonObject) -> Sequence[Block]:
        """The section as blocks for the pages."""
