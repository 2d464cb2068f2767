"""The arithmetic of a plain LoRA layer as one node of the autograd graph.

Shapes: T tokens, I inputs, O outputs, r rank.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class _Adapted(torch.autograd.Function):
    """x·Wᵀ + b + (s·x·Aᵀ)·Bᵀ with W and b frozen. Saved are x, which W's neighbours save too, and s·x·Aᵀ."""

    @staticmethod
    def forward(
        ctx: Any, x_TI: Tensor, weight_OI: Tensor, bias_O: Tensor | None, a_rI: Tensor, b_Or: Tensor, scale: float
    ) -> Tensor:
        low_Tr = (x_TI @ a_rI.t()).mul_(scale)
        ctx.save_for_backward(x_TI, weight_OI, a_rI, b_Or, low_Tr)
        ctx.scale = scale
        return F.linear(x_TI, weight_OI, bias_O).addmm_(low_Tr, b_Or.t())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x_TI, weight_OI, a_rI, b_Or, low_Tr = ctx.saved_tensors
        slope_TO = grads[0]
        slope_Tr = (slope_TO @ b_Or).mul_(ctx.scale)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (slope_TO @ weight_OI).addmm_(slope_Tr, a_rI)
        grad_a = slope_Tr.t() @ x_TI
        grad_b = slope_TO.t() @ low_Tr
        return grad_x, None, None, grad_a, grad_b, None


class PlainLora(Linear):
    """peft's layer; where it is plain (one adapter, nothing merged, no dropout, a frozen linear base), one node.

    peft's own forward takes six operations, each with an output of the layer's size that the backward pass reads again.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """x [..., I] → [..., O], as peft computes it."""
        name = self.active_adapters[0] if len(self.active_adapters) == 1 else ""
        base: Any = self.base_layer
        if args or kwargs or self.disable_adapters or self.merged or not self._is_plain(name, base):
            return super().forward(x, *args, **kwargs)
        a, b = self.lora_A[name].weight, self.lora_B[name].weight
        if not x.dtype == a.dtype == b.dtype == base.weight.dtype:
            return super().forward(x)
        out: Tensor = _Adapted.apply(x.reshape(-1, x.shape[-1]), base.weight, base.bias, a, b, self.scaling[name])  # type: ignore[assignment]
        return out.view(*x.shape[:-1], -1)

    def _is_plain(self, name: str, base: Any) -> bool:
        return (
            name in self.lora_A
            and name not in self.lora_variant
            and not self.lora_bias[name]
            and isinstance(self.lora_dropout[name], nn.Identity)
            and type(base) is nn.Linear
            and not base.weight.requires_grad
            and (base.bias is None or not base.bias.requires_grad)
        )
