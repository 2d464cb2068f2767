"""AdamW (Loshchilov & Hutter 2017, arXiv 1711.05101), torch's fused kernel."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from tuneloop.tune.optimizers import OptimizerChoice

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer


class Adam(OptimizerChoice):
    """The options that all forms of AdamW share."""

    beta1: float = Field(default=0.9, ge=0, lt=1)
    """Decay of the running mean of gradients."""
    beta2: float = Field(default=0.999, ge=0, lt=1)
    """Decay of the running mean of squared gradients."""
    epsilon: float = Field(default=1e-8, gt=0)
    """Added to the denominator."""


class AdamW(Adam):
    """Adam with decoupled weight decay."""

    def build(
        self, named: Mapping[str, nn.Parameter], rates: Mapping[str, float], matrices: Collection[str]
    ) -> list[Optimizer]:
        import torch

        betas = (self.beta1, self.beta2)
        return [torch.optim.AdamW(self.groups(named, rates, matrices), betas=betas, eps=self.epsilon, fused=True)]
