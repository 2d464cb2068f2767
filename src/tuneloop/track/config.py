"""The recipe's branch `track`: where curves are shown. It changes no result, so it is no part of what names a run."""

from __future__ import annotations

import importlib.util
from typing import Annotated

from pydantic import Field

from tuneloop.core.errors import MissingExtra
from tuneloop.core.plugins import Branch
from tuneloop.track.trackers import TRACKERS, Tracker


class TrackConfig(Branch):
    """Where the curves go, beside metrics.jsonl and curves.html in the run folder."""

    to: list[Annotated[Tracker, TRACKERS]] = Field(default_factory=lambda: [TRACKERS.make("tensorboard")])
    """tensorboard, wandb, mlflow, trackio; several at once are fine, [] is none."""
    project: str | None = Field(default=None, min_length=1)
    """Project or experiment there; by default the recipe's name."""

    def check(self) -> None:
        """Raises MissingExtra when a package is missing."""
        for tracker in self.to:
            if importlib.util.find_spec(tracker.package) is None:
                raise MissingExtra(tracker.package, f"track.to: {TRACKERS.name_of(tracker)}", tracker.package)
