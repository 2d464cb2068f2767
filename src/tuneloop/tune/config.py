"""The branch `tune` of the recipe."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tuneloop.core.plugins import Branch
from tuneloop.tune.methods import MethodChoice
from tuneloop.tune.moe import Moe
from tuneloop.tune.objective import ObjectiveConfig
from tuneloop.tune.optimizers import OptimizerField
from tuneloop.tune.schedules import ScheduleChoice


class EarlyStopping(Branch):
    """When to stop before the last epoch, and which checkpoint is the best."""

    metric: str = "loss"
    """`loss` on the validation rows, or a metric of `evaluate.metrics` measured on generated answers."""
    patience: int = Field(default=3, ge=1)
    """Validations without improvement before training stops."""
    min_delta: float = Field(default=0.0, ge=0)
    """An improvement smaller than this counts as none."""


class Validation(Branch):
    """What is measured on the validation rows while training runs."""

    every: int | None = Field(default=None, ge=1)
    """Steps between validations; by default five times an epoch, at least once."""
    rows: int = Field(default=200, ge=1)
    """At most this many validation rows, chosen by their digests (a random but fixed choice over all sources)."""
    generate: int = Field(default=0, ge=0)
    """Rows of the same choice to generate answers for and score with `evaluate.metrics`; 0: only the loss."""


class Memory(Branch):
    """What fits: none of it changes the result."""

    token_budget: Annotated[int, Field(ge=8)] | Literal["find"] | None = None
    """Tokens per forward pass (micro-batch); by default by device; find: the fastest that fits, found by trying."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    trunk_cache: bool | None = None
    """Compute what frozen lower layers give for each row once and keep it in a file; by default where it saves time."""
    trunk_gib: float = Field(default=16, gt=0)
    """The most that such files may take of the cache folder, all runs' together."""


class TuneConfig(Branch):
    """How the model is tuned."""

    method: MethodChoice = Field(default="lora", validate_default=True)  # type: ignore[assignment]
    """What is trained: full, lora, …"""
    objective: ObjectiveConfig = ObjectiveConfig()
    """What is minimised: the plain loss of the answers, or more."""
    epochs: float = Field(default=3, gt=0)
    """Passes over the training rows, or draws of `data.mix`; fractions are allowed."""
    steps: int | None = Field(default=None, ge=1)
    """Optimizer steps, instead of epochs."""
    learning_rate: float = Field(default=2e-4, gt=0)
    """Peak learning rate."""
    batch_size: int = Field(default=32, ge=1)
    """Examples per optimizer step, over all devices and accumulation steps."""
    shuffle: bool | Literal["families"] = True
    """Another order in each epoch, drawn from the seed; families: rows that begin alike (answers to one prompt, turns
    of one dialogue) stay together, their beginning is computed once; false keeps the rows' order (a curriculum)."""
    max_length: int = Field(default=2048, ge=8)
    """Tokens of the longest example; `overlong` says what happens to longer ones."""
    overlong: Literal["reject", "drop_turns", "truncate"] = "reject"
    """reject: drop the row and say so; drop_turns: drop whole turns from the middle; truncate: cut the answer."""
    optimizer: OptimizerField = Field(default="adamw", validate_default=True)  # type: ignore[assignment]
    """adamw, adamw_8bit, adafactor, lion or muon, with their options."""
    schedule: ScheduleChoice = Field(default="cosine", validate_default=True)  # type: ignore[assignment]
    """cosine, cosine_restarts, linear, constant or wsd, each with warm-up."""
    memory: Memory = Memory()
    """Micro-batches, gradient checkpointing, the file of frozen layers."""
    moe: Moe = Moe()
    """Routers of mixture-of-experts models: load-balancing loss, frozen or not."""
    validation: Validation = Validation()
    """Measurements while training."""
    early_stopping: EarlyStopping | None = None
    """Stop when the metric no longer improves; the best checkpoint is kept."""
    save_every: int | None = Field(default=None, ge=1)
    """Steps between checkpoints to resume from; by default about ten times a run."""

    @model_validator(mode="after")
    def _metric_is_measured(self) -> Self:
        rule = self.early_stopping
        measured = ("loss", *self.objective.measured)
        if rule and rule.metric not in measured and not self.validation.generate:
            raise ValueError(
                f"early_stopping.metric '{rule.metric}' is measured on generated answers: set validation.generate to "
                f"the number of rows to answer, e.g. 50"
            )
        return self

    def steps_per_epoch(self, rows: int) -> int:
        """Optimizer steps of an epoch of so many rows."""
        return math.ceil(rows / self.batch_size)

    def total_steps(self, rows: int) -> int:
        """Optimizer steps of the whole run, in epochs of so many rows."""
        return self.steps or max(1, round(self.epochs * self.steps_per_epoch(rows)))
