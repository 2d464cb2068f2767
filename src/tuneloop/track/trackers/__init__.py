"""Where the curves of a run go beside metrics.jsonl, one file each; nothing leaves the machine unless asked for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from tuneloop.core.plugins import Family, Plugin


@dataclass(frozen=True)
class Story:
    """What a tracker is told: the run's folder, its settings, and the step after which it goes on (0 at the start)."""

    run: Path
    project: str
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    resumed: int = 0


class Sink(Protocol):
    """An open connection: gets every step's numbers, in order."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Takes the numbers of one step."""
        ...

    def answers(self, step: int, table: Sequence[tuple[str, str, str]]) -> None:
        """Takes (prompt, reference, answer) of some validation rows, before the numbers of the same step."""
        ...

    def close(self, finished: bool) -> None:
        """Ends the connection; `finished` is False where the run was stopped or failed."""
        ...


class Tracker(Plugin):
    """A kind of place for curves. A package that is missing is said before any work begins."""

    package: ClassVar[str]
    """The module that must be importable, and the extra of tuneloop that installs it."""

    @abstractmethod
    def open(self, story: Story) -> Sink:
        """Starts, or goes on with, the run's record there."""


TRACKERS: Family[Tracker] = Family("trackers", __name__, Tracker)
