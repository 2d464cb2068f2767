"""Lion (Chen et al. 2023, arXiv 2302.06675, algorithm 2): the sign of an interpolated momentum."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from tuneloop.tune.optimizers import OptimizerChoice

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer


class Lion(OptimizerChoice):
    """Every weight moves by exactly the learning rate: take 3 to 10 times less than for AdamW, and as much more weight
    decay. One moment instead of two."""

    state_bytes: ClassVar[float] = 4

    beta1: float = Field(default=0.9, ge=0, lt=1)
    """Share of the momentum in the direction of this step."""
    beta2: float = Field(default=0.99, ge=0, lt=1)
    """Decay of the momentum."""

    def build(
        self, named: Mapping[str, nn.Parameter], rates: Mapping[str, float], matrices: Collection[str]
    ) -> list[Optimizer]:
        from tuneloop.tune.lion import SignMomentum

        return [SignMomentum(self.groups(named, rates, matrices), self.beta1, self.beta2)]
