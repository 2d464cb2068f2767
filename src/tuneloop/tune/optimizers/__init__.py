"""Optimizers, one file each: how parameter groups become torch optimizers. Masters and clipping are in optimizer.py."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from tuneloop.core.plugins import Family, Plugin

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer


class OptimizerChoice(Plugin):
    """Builds torch optimizers over named float32 parameters."""

    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay on matrices; norms, biases and other vectors are never decayed."""

    @abstractmethod
    def build(self, named: dict[str, nn.Parameter], learning_rate: float) -> list[Optimizer]:
        """Optimizers that together cover every parameter once; each group's `lr` is its peak rate."""


FAMILY: Family[OptimizerChoice] = Family("optimizers", __name__, OptimizerChoice)
OptimizerField = Annotated[OptimizerChoice, FAMILY]
