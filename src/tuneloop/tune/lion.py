"""The torch optimizer behind `lion`; torch has none, and the plug-in's file must load without torch."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import Optimizer


class SignMomentum(Optimizer):
    """w ← w - lr · (sign(β1·m + (1-β1)·g) + decay·w);  m ← β2·m + (1-β2)·g  (Chen et al. 2023, algorithm 2)."""

    def __init__(self, groups: list[dict[str, Any]], beta1: float, beta2: float) -> None:
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0})
        self.beta1, self.beta2 = beta1, beta2

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                momentum = state["momentum"]
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(torch.lerp(weight.grad, momentum, self.beta1).sign_(), alpha=-group["lr"])
                momentum.lerp_(weight.grad, 1 - self.beta2)
