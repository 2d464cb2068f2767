"""What is compiled (kernels.py) as nodes of the autograd graph: attention within rows, turns by place, gates.

Shapes: T tokens, H query heads, K key/value heads, D head size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tuneloop.forward.kernels import Kernels
from tuneloop.forward.layout import Rows

if TYPE_CHECKING:
    from tuneloop.forward.gpu import GpuKernels


class _Attention(torch.autograd.Function):
    """Saved are its inputs and a number for each query; shares are made again on the way back."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, kernels: Kernels, rows: Rows, window: int | None, scaling: float
    ) -> Tensor:
        out_THD, total_TH = kernels.attend(q, k, v, rows, window, scaling)
        ctx.save_for_backward(q, k, v, total_TH)
        ctx.how = kernels, rows, window, scaling
        return out_THD[None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        q, k, v, total_TH = ctx.saved_tensors
        kernels, rows, window, scaling = ctx.how
        slope = _by_heads(grads[0][0])
        of_q, of_k, of_v = kernels.attend_back(slope, q, k, v, total_TH, rows, window, scaling)
        given = [of_q, *(_to_tokens(x, rows, k.shape[2]).to(k.dtype) for x in (of_k, of_v))]
        return (*(x.transpose(0, 1)[None] for x in given), None, None, None, None)


def _to_tokens(x_NKD: Tensor, rows: Rows, tokens: int) -> Tensor:
    """[T, K, D]: the sum over the rows of a token."""
    return x_NKD if rows.in_order else x_NKD.new_zeros(tokens, *x_NKD.shape[1:]).index_add_(0, rows.paths_N, x_NKD)


def _by_heads(x: Tensor) -> Tensor:
    """With the numbers of a head behind one another."""
    return x if x.stride(-1) == 1 else x.contiguous()


def attention(
    kernels: Kernels, q: Tensor, k: Tensor, v: Tensor, rows: Rows, window: int | None, scaling: float
) -> Tensor:
    """q [1, H, T, D], k and v [1, K, T, D] → what each query reads of its row [1, T, H, D]."""
    out: Tensor = _Attention.apply(*map(_by_heads, (q, k, v)), kernels, rows, window, scaling)  # type: ignore[assignment]
    return out


class _Turned(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, cosine: Tensor, sine: Tensor, kernels: Kernels | GpuKernels
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(cosine, sine)
        ctx.kernels = kernels
        return tuple(kernels.turn(_by_heads(x), cosine, sine, back=False) for x in (q, k))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        cosine, sine = ctx.saved_tensors
        return (*(ctx.kernels.turn(_by_heads(x), cosine, sine, back=True) for x in grads), None, None, None)


def turned(kernels: Kernels | GpuKernels, q: Tensor, k: Tensor, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor]:
    """Queries [1, H, T, D] and keys [1, K, T, D] turned by their places' cosines and sines [1, T, D]."""
    out: tuple[Tensor, Tensor] = _Turned.apply(q, k, cosine.contiguous(), sine.contiguous(), kernels)  # type: ignore[assignment]
    return out


class _Gated(torch.autograd.Function):
    """Saved are its inputs: what is opened is made again on the way back."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, held: Tensor, kernels: Kernels | GpuKernels) -> Tensor:
        gate, held = gate.contiguous(), held.contiguous()
        ctx.save_for_backward(gate, held)
        ctx.kernels = kernels
        return kernels.gated(gate, held)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return (*ctx.kernels.gated_back(grads[0], *ctx.saved_tensors), None)


def gated(kernels: Kernels | GpuKernels, gate: Tensor, held: Tensor) -> Tensor:
    """silu(gate) · held."""
    out: Tensor = _Gated.apply(gate, held, kernels)  # type: ignore[assignment]
    return out
