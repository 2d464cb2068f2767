"""Adafactor (Shazeer & Stern 2018, arXiv 1804.04235), torch's implementation.

The second moment of a matrix is kept as a product of row and column means.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from tuneloop.tune.optimizers import OptimizerChoice

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer


class Adafactor(OptimizerChoice):
    """Almost no memory for its state. The step is relative to a weight's own size: learning_rate 1e-2 is usual, and
    it never steps further than 1/√step."""

    state_bytes: ClassVar[float] = 0.05

    decay: float = Field(default=0.8, gt=0, le=1)
    """The mean of squared gradients forgets at the rate 1 - step^-decay."""
    smallest: float = Field(default=1e-3, gt=0)
    """Weights smaller than this (root mean square) step as if they were of this size."""
    clip_update: float = Field(default=1.0, ge=1)
    """Largest root mean square of an update, in units of the learning rate."""

    def build(
        self, named: Mapping[str, nn.Parameter], rates: Mapping[str, float], matrices: Collection[str]
    ) -> list[Optimizer]:
        import torch

        return [
            torch.optim.Adafactor(
                self.groups(named, rates, matrices),
                beta2_decay=-self.decay,
                eps=(None, self.smallest),
                d=self.clip_update,
            )
        ]
