"""Llama's RMSNorm as one node of the autograd graph: on CPU, and on a GPU where Triton is at hand.

transformers writes it as eight operations with three float32 outputs that the backward pass reads again: 6 % of a step
of LoRA on a model of 135 M parameters. Shapes: D hidden size.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tuneloop.forward.kernels import kernels_for


class _Normed(torch.autograd.Function):
    """x / √(mean(x²) + ε) in float32, rounded to the dtype of x, times the weight; saved are x and a factor a token."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor, epsilon: float) -> Tensor:
        ctx.kernels, x = kernels_for(x), x.contiguous()
        if ctx.kernels is None:
            factor = _factor(x, epsilon)
            out = (x.float() * factor).to(x.dtype) * weight_D
        else:
            out, factor = ctx.kernels.norm(x, weight_D, epsilon)
        ctx.save_for_backward(x, weight_D, factor)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight_D, factor = ctx.saved_tensors
        if ctx.kernels is not None:
            return (*ctx.kernels.norm_back(grads[0], x, weight_D, factor, ctx.needs_input_grad[1]), None)
        normed = x.float() * factor
        grad_weight = None
        if ctx.needs_input_grad[1]:
            grad_weight = (grads[0] * normed.to(x.dtype)).reshape(-1, x.shape[-1]).sum(0)
        slope = (grads[0] * weight_D).float()
        along = torch.linalg.vecdot(slope, normed)[..., None].div_(-x.shape[-1])
        return slope.addcmul(normed, along).mul_(factor).to(x.dtype), grad_weight, None


def _factor(x: Tensor, epsilon: float) -> Tensor:
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    return torch.addcmul(_as_tensor(epsilon, x.device), length, length, value=1 / x.shape[-1]).rsqrt_()


@cache
def _as_tensor(number: float, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(number, dtype=torch.float32, device=device)


def norm(self: Any, hidden_states: Tensor) -> Tensor:
    """The forward pass of a module that is written as Llama's RMSNorm is."""
    x, weight = hidden_states, self.weight
    elsewhere = x.device.type != "cpu" and kernels_for(x) is None
    if elsewhere or x.dtype is torch.float64 or x.dtype is not weight.dtype:
        return type(self).forward(self, x)
    if not torch.is_grad_enabled():
        return normed(self, x)
    out: Tensor = _Normed.apply(x, weight, self.variance_epsilon)  # type: ignore[assignment]
    return out


def normed(module: Any, x: Tensor) -> Tensor:
    """What a norm like Llama's makes of x, where no gradient is asked for."""
    kernels = kernels_for(x)
    if kernels is not None and x.dtype is module.weight.dtype:
        return kernels.norm(x.contiguous(), module.weight, module.variance_epsilon)[0]
    return (x * _factor(x, module.variance_epsilon)).to(x.dtype) * module.weight
