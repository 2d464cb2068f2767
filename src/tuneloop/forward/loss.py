"""Negative log-likelihood of scored positions, in chunks: the full logits [N, V] never exist at once.

Shapes: N scored positions, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

CPU_ROWS = 128
"""Positions of one chunk on CPU, twice as many where the head is trained. Each chunk reads the head's whole weight (and
adds to its whole gradient), so fewer cost more: 16 instead of 128 twice the time; many more only cost memory."""
CHUNK_ELEMENTS = 1 << 25
"""Logits of one chunk on other devices, but never fewer than 256 positions."""


class _ChunkedNLL(torch.autograd.Function):
    """Weighted sum of -log p(target), with its gradients computed chunk by chunk in the forward pass.

    As the loss is a plain sum, the gradient for an outer factor g is g times the gradient for 1; so the backward pass
    only scales what the forward pass has computed, and logits are made once (as in Liger's fused linear cross-entropy,
    arXiv 2410.10989, section 3.2, restricted to scored positions).
    """

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, targets_N: Tensor, weights_N: Tensor
    ) -> tuple[Tensor, Tensor]:
        needs_hidden, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        wide = torch.promote_types(hidden_ND.dtype, torch.float32)
        nll_N = torch.empty(len(targets_N), dtype=wide, device=hidden_ND.device)
        grad_hidden = torch.empty_like(hidden_ND) if needs_hidden else None
        grad_weight = torch.zeros_like(weight_VD, dtype=wide) if needs_weight else None
        grad_bias = torch.zeros_like(bias_V, dtype=wide) if needs_bias and bias_V is not None else None
        for part in _chunks(hidden_ND, weight_VD.shape[0], needs_weight):
            h, target = hidden_ND[part], targets_N[part, None]
            logits = F.linear(h, weight_VD, bias_V).to(wide)
            norm = logits.logsumexp(-1, keepdim=True)
            nll_N[part] = (norm - logits.gather(-1, target))[:, 0]
            if grad_hidden is None and grad_weight is None and grad_bias is None:
                continue
            slope = logits.sub_(norm).exp_()  # softmax, in place
            slope.scatter_add_(-1, target, slope.new_full(target.shape, -1.0))
            slope.mul_(weights_N[part, None])
            if grad_bias is not None:
                grad_bias += slope.sum(0)
            slope = slope.to(h.dtype)
            if grad_hidden is not None:
                torch.mm(slope, weight_VD, out=grad_hidden[part])
            if grad_weight is not None:
                grad_weight += slope.t() @ h
        ctx.save_for_backward(
            grad_hidden,
            grad_weight.to(weight_VD.dtype) if grad_weight is not None else None,
            grad_bias.to(weight_VD.dtype) if grad_bias is not None else None,
        )
        ctx.mark_non_differentiable(nll_N)
        return (nll_N * weights_N).sum(), nll_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        factor = grads[0]
        scaled = [None if saved is None else saved * factor.to(saved.dtype) for saved in ctx.saved_tensors]
        return (*scaled, None, None)


def chunked_nll(
    hidden_ND: Tensor,
    head: nn.Module,
    targets_N: Tensor,
    weights_N: Tensor,
    finish: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """(sum of weight · nll, nll_N). `finish` is what the model does to its logits after the head, if anything.

    A plain linear head takes the fused form; any other (LoRA on the head, soft-capped logits) is recomputed in the
    backward pass instead. Both are exact.
    """
    weights_N = weights_N.to(torch.promote_types(hidden_ND.dtype, torch.float32))
    if type(head) is nn.Linear and finish is None:
        return _ChunkedNLL.apply(hidden_ND, head.weight, head.bias, targets_N, weights_N)  # type: ignore[return-value]

    def part_nll(h: Tensor, target: Tensor) -> Tensor:
        logits = head(h)
        logits = logits if finish is None else finish(logits)
        return F.cross_entropy(logits.to(weights_N.dtype), target, reduction="none")

    width: Any = getattr(head, "out_features", None) or head.weight.shape[0]  # type: ignore[union-attr]
    parts = [
        checkpoint(part_nll, hidden_ND[part], targets_N[part], use_reentrant=False)
        for part in _chunks(hidden_ND, width, any(p.requires_grad for p in head.parameters()))
    ]
    nll_N = torch.cat(parts) if parts else hidden_ND.sum() * 0 + weights_N  # type: ignore[arg-type]
    return (nll_N * weights_N).sum(), nll_N.detach()


def _chunks(hidden_ND: Tensor, width: int, trained: bool) -> list[slice]:
    count = len(hidden_ND)
    size = CPU_ROWS * (1 + trained) if hidden_ND.device.type == "cpu" else max(256, CHUNK_ELEMENTS // width)
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
