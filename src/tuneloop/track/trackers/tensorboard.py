"""TensorBoard event files in the run folder: `tensorboard --logdir runs`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from tuneloop.pages.answers import HEAD
from tuneloop.pages.markdown import entities
from tuneloop.track.trackers import Story, Tracker

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter


class TensorBoard(Tracker):
    """Event files in RUN/tensorboard."""

    package: ClassVar[str] = "tensorboard"

    def open(self, story: Story) -> Board:
        from torch.utils.tensorboard.writer import SummaryWriter

        # steps after the checkpoint are computed again: the reader drops their first versions
        purge = story.resumed + 1 if story.resumed else None
        return Board(SummaryWriter(str(story.run / "tensorboard"), purge_step=purge))


class Board:
    """A Sink over a SummaryWriter."""

    def __init__(self, writer: SummaryWriter) -> None:
        self.writer = writer

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """As Sink.log."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def answers(self, step: int, table: Sequence[tuple[str, str, str]]) -> None:
        """As Sink.answers: a Markdown table in the tab Text, with a slider over the validations."""
        lines = [HEAD, ["---"] * len(HEAD), *([entities(text) for text in line] for line in table)]
        self.writer.add_text("answers", "\n".join(f"| {' | '.join(line)} |" for line in lines), step)

    def close(self, finished: bool) -> None:
        """As Sink.close."""
        self.writer.close()
