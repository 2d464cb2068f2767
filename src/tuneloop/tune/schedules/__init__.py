"""Learning-rate schedules, one file each: the factor on the peak rate at each step. Warm-up is shared by all."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated

from pydantic import Field

from tuneloop.core.plugins import Family, Plugin


class Schedule(Plugin):
    """Linear warm-up from 0, then the leaf's curve over the remaining steps."""

    warmup: float = Field(0.03, ge=0)
    """Below 1: share of all steps; from 1 on: number of steps."""

    def factor(self, step: int, total: int) -> float:
        """Factor on the learning rate for step 0 ≤ step < total."""
        warm = round(self.warmup * total) if self.warmup < 1 else int(self.warmup)
        if step < warm:
            return (step + 1) / (warm + 1)
        return self.curve((step - warm) / max(1, total - warm))

    @abstractmethod
    def curve(self, progress: float) -> float:
        """Factor after warm-up, for progress from 0 to just below 1."""


FAMILY: Family[Schedule] = Family("schedules", __name__, Schedule)
ScheduleChoice = Annotated[Schedule, FAMILY]
