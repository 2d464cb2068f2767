"""Trackio: an SQLite file on this machine with a local dashboard (`trackio show`)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from typing import Any, ClassVar

from tuneloop.pages.answers import HEAD
from tuneloop.pages.markdown import entities
from tuneloop.track.trackers import Story, Tracker


class Trackio(Tracker):
    """A local record under RUNS/trackio; nothing is sent to a Space."""

    package: ClassVar[str] = "trackio"

    def open(self, story: Story) -> Local:
        # read by the package when it is imported, and by `trackio show`
        os.environ.setdefault("TRACKIO_DIR", str(story.run.resolve().parent / "trackio"))
        import trackio

        with redirect_stdout(StringIO()):  # our stdout is for results
            run = trackio.init(
                project=story.project, name=story.run.name, config=dict(story.settings), resume="allow", embed=False,
                auto_log_cpu=False, auto_log_gpu=False,
            )  # fmt: skip
        return Local(run)


class Local:
    """A Sink over a Trackio run."""

    def __init__(self, run: Any) -> None:
        self.run = run

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """As Sink.log."""
        self.run.log(dict(values), step=step)

    def answers(self, step: int, table: Sequence[tuple[str, str, str]]) -> None:
        """As Sink.answers."""
        import trackio

        # it takes texts for Markdown
        shown = trackio.Table(columns=list(HEAD), data=[[entities(text) for text in line] for line in table])
        self.run.log({"answers": shown}, step=step)

    def close(self, finished: bool) -> None:
        """As Sink.close."""
        with redirect_stdout(StringIO()):
            self.run.finish()
