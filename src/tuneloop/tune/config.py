"""The branch `tune` of the recipe."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from tuneloop.core.plugins import Branch
from tuneloop.tune.canaries import Canaries
from tuneloop.tune.methods import MethodChoice
from tuneloop.tune.moe import Moe
from tuneloop.tune.objective import ObjectiveConfig
from tuneloop.tune.optimizers import OptimizerField
from tuneloop.tune.schedules import ScheduleChoice

ASKED = 50
"""Validation rows that are asked where early stopping needs a metric and the recipe gives no number."""


class EarlyStopping(Branch):
    """When to stop before the last epoch, and which checkpoint is the best."""

    metric: str = "loss"
    """`loss` on the validation rows, or any metric of `evaluate.metrics`; which way is better, the metric knows."""
    patience: int = Field(default=3, ge=1)
    """Validations without improvement before training stops."""
    min_delta: float = Field(default=0.0, ge=0)
    """An improvement smaller than this counts as none."""


class Validation(Branch):
    """What is measured while training runs, on validation rows, and at its end."""

    every: int | None = Field(default=None, ge=1)
    """Steps between validations; by default five times an epoch, at least once."""
    rows: int = Field(default=200, ge=1)
    """At most this many validation rows, chosen by their digests (a random but fixed choice over all sources)."""
    generate: int | None = Field(default=None, ge=0)
    """Rows of the same choice to ask and to score with `metrics`; 0: only the loss. By default 50 where early stopping
    needs a metric, else 0."""
    metrics: tuple[str, ...] | None = None
    """Which of `evaluate.metrics`; by default all but those that take several samples an answer or ask a judge. The
    metric of early stopping is always measured."""
    canaries: Canaries | None = None
    """Secrets to plant among the training rows, to measure what is memorised; a number alone is their `count`."""

    @field_validator("canaries", mode="before", json_schema_input_type=Canaries | int | None)
    @classmethod
    def _counted(cls, value: Any) -> Any:
        return {"count": value} if isinstance(value, int) else value


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
    def _canaries_have_one_answer(self) -> Self:
        if self.validation.canaries and self.objective.orpo:
            raise ValueError("validation.canaries have no rejected answer, which objective.orpo needs: take one out")
        return self

    @model_validator(mode="after")
    def _metric_is_measured(self) -> Self:
        if self.stop_metric and self.validation.generate == 0:
            raise ValueError(
                f"early_stopping.metric '{self.stop_metric}' is measured by asking validation rows, and "
                f"validation.generate: 0 asks none: set it to a number of rows, e.g. 50, or leave it out"
            )
        return self

    @property
    def stop_metric(self) -> str | None:
        """The metric of `evaluate.metrics` that early stopping goes by; None where it goes by a loss, or is off."""
        rule = self.early_stopping
        return rule.metric if rule and rule.metric not in ("loss", *self.objective.measured) else None

    @property
    def asked_rows(self) -> int:
        """Validation rows that are asked and scored."""
        given = self.validation.generate
        return given if given is not None else ASKED if self.stop_metric else 0

    def steps_per_epoch(self, rows: int) -> int:
        """Optimizer steps of an epoch of so many rows."""
        return math.ceil(rows / self.batch_size)

    def total_steps(self, rows: int) -> int:
        """Optimizer steps of the whole run, in epochs of so many rows."""
        return self.steps or max(1, round(self.epochs * self.steps_per_epoch(rows)))
