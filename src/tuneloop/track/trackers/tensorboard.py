"""TensorBoard event files in the run folder: `tensorboard --logdir runs`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
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
        return Board(story)


class Board:
    """A Sink over a SummaryWriter, which is made when there is something to write: the first step need not wait for
    the libraries of the event files."""

    def __init__(self, story: Story) -> None:
        self.story = story

    @cached_property
    def writer(self) -> SummaryWriter:
        """Of RUN/tensorboard."""
        from torch.utils.tensorboard.writer import SummaryWriter

        # steps after the checkpoint are computed again: the reader drops their first versions
        purge = self.story.resumed + 1 if self.story.resumed else None
        return SummaryWriter(str(self.story.run / "tensorboard"), purge_step=purge)

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
        if "writer" in self.__dict__:
            self.writer.close()
