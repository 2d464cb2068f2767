"""Weights & Biases; offline by default: the run's files wait in RUN/wandb for `wandb sync`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from tuneloop.core import digest
from tuneloop.pages.answers import HEAD
from tuneloop.track.trackers import Story, Tracker


class WandB(Tracker):
    """W&B without code, git, host facts or console output: the numbers and the recipe alone."""

    package: ClassVar[str] = "wandb"

    mode: Literal["offline", "online"] = "offline"
    """offline: files in the run folder; online: sent as training goes, with the account of `wandb login`."""
    entity: str | None = None
    """User or team of the project."""

    def open(self, story: Story) -> Run:
        import wandb

        quiet = wandb.Settings(
            silent=True, console="off", disable_git=True, disable_code=True, save_code=False,
            x_disable_stats=True, x_disable_meta=True, x_disable_machine_info=True,
        )  # fmt: skip
        return Run(
            wandb.init(
                project=story.project,
                entity=self.entity,
                name=story.run.name,
                id=digest.short(digest.of_value(story.run.name)),
                resume="allow" if self.mode == "online" else None,
                dir=str(story.run),
                mode=self.mode,
                config=dict(story.settings),
                settings=quiet,
            )
        )


class Run:
    """A Sink over a W&B run."""

    def __init__(self, run: Any) -> None:
        self.run = run

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """As Sink.log."""
        self.run.log(dict(values), step=step, commit=True)

    def answers(self, step: int, table: Sequence[tuple[str, str, str]]) -> None:
        """As Sink.answers."""
        import wandb

        shown = wandb.Table(columns=list(HEAD), data=[list(line) for line in table])
        self.run.log({"answers": shown}, step=step, commit=False)  # W&B takes no step twice once it is committed

    def close(self, finished: bool) -> None:
        """As Sink.close."""
        self.run.finish(exit_code=0 if finished else 1)
