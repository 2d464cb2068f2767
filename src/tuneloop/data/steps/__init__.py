"""Data steps, one file each: each looks at all Examples and says which to keep and why not the others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tuneloop.core.conversation import Example, JsonObject
from tuneloop.core.plugins import Family, Plugin


@dataclass(frozen=True)
class Rejected:
    """An Example that a step takes out, with a reason a person understands and the evidence for it."""

    example: Example
    reason: str
    evidence: JsonObject = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Sieved:
    """The result of a step. Every Example that went in is in one of the two; a repaired one is kept with a new id."""

    kept: list[Example]
    rejected: list[Rejected]


class Step(Plugin, ABC):
    """One check or repair over all Examples of the sources."""

    @abstractmethod
    def apply(self, examples: Sequence[Example]) -> Sieved:
        """Keeps, repairs or rejects; the order of the kept ones stays. Deterministic."""


STEPS: Family[Step] = Family("steps", __name__, Step)
