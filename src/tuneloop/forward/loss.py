"""Negative log-likelihood of scored positions, in chunks: the full logits [N, V] never exist at once.

Shapes: N scored positions, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from tuneloop.forward.kernels import kernels_for

CPU_ROWS = 128
"""Positions of one chunk on CPU, twice as many where the head is trained. Each chunk reads the head's whole weight (and
adds to its whole gradient), so fewer cost more: 16 instead of 128 twice the time; many more only cost memory."""
CHUNK_ELEMENTS = 1 << 25
"""Logits of one chunk on other devices, but never fewer than 256 positions."""
SLAB_ELEMENTS = 1 << 24
"""Logits of one chunk on CPU where they are made only once and take no memory beside their own."""
PIECE_ELEMENTS = 1 << 20
"""Logits that are worked on at once in float32 on CPU: its caches hold them."""


@dataclass(frozen=True)
class Shaping:
    """What a position's loss is, beside -log p(target).

    `smoothing` ε: (1 - ε)·(-log p(target)) + ε·mean over the vocabulary of -log p, as torch's cross_entropy has it
    (Szegedy et al. 2015, arXiv 1512.00567, section 7). `dft`: p(target)·(-log p(target)), the factor without gradient
    (Dynamic Fine-Tuning, Wu et al. 2025, arXiv 2508.05629).
    """

    smoothing: float = 0.0
    dft: bool = False


PLAIN = Shaping()


class _ChunkedNLL(torch.autograd.Function):
    """Weighted sum of shaped losses, with its gradients computed chunk by chunk in the forward pass.

    As the loss is a plain sum, the gradient for an outer factor g is g times the gradient for 1; so the backward pass
    only scales what the forward pass has computed, and logits are made once (as in Liger's fused linear cross-entropy,
    arXiv 2410.10989, section 3.2, restricted to scored positions).
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        targets_N: Tensor,
        weights_N: Tensor,
        shaping: Shaping = PLAIN,
    ) -> tuple[Tensor, Tensor]:
        needs_hidden, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        wide = torch.promote_types(hidden_ND.dtype, torch.float32)
        nll_N = torch.empty(len(targets_N), dtype=wide, device=hidden_ND.device)
        shaped_N = torch.empty_like(nll_N) if shaping != PLAIN else nll_N
        grad_hidden = torch.empty_like(hidden_ND) if needs_hidden else None
        grad_weight: Tensor | None = None
        grad_bias = torch.zeros_like(bias_V, dtype=wide) if needs_bias and bias_V is not None else None
        slopes_wanted = needs_hidden or needs_weight or needs_bias
        for chunk in slabs(hidden_ND, weight_VD.shape[0]):
            h = hidden_ND[chunk]
            logits = F.linear(h, weight_VD, bias_V)
            weights = weights_N[chunk] if slopes_wanted else None
            nll_N[chunk], mean = likelihood(logits, targets_N[chunk], weights, shaping)
            if shaping != PLAIN:
                shaped_N[chunk] = _shaped(nll_N[chunk], shaping, mean)
            if grad_bias is not None:
                grad_bias += logits.sum(0, dtype=wide)
            if grad_hidden is not None:
                torch.mm(logits, weight_VD, out=grad_hidden[chunk])
            if needs_weight:
                part = logits.t() @ h
                grad_weight = part if grad_weight is None else grad_weight.to(wide).add_(part)
        ctx.save_for_backward(
            grad_hidden,
            grad_weight.to(weight_VD.dtype) if grad_weight is not None else None,
            grad_bias.to(weight_VD.dtype) if grad_bias is not None else None,
        )
        ctx.mark_non_differentiable(nll_N)
        return (shaped_N * weights_N).sum(), nll_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        factor = grads[0]
        scaled: Sequence[Tensor | None] = ctx.saved_tensors
        if factor.device.type != "cpu" or factor != 1:  # elsewhere to look would be to wait
            scaled = [None if saved is None else saved * factor.to(saved.dtype) for saved in scaled]
        return (*scaled, None, None, None)


def likelihood(
    logits_NV: Tensor, targets_N: Tensor, weights_N: Tensor | None, shaping: Shaping
) -> tuple[Tensor, Tensor | None]:
    """(-log p(target) [N], the mean of -log p over the vocabulary [N] where the shaping is not plain).

    With weights [N] logits become, in place, the slopes of the weighted shaped loss.
    """
    kernels = kernels_for(logits_NV)
    if kernels is not None:
        return kernels.likelihood(logits_NV, targets_N, weights_N, shaping.smoothing, shaping.dft)
    wide = torch.promote_types(logits_NV.dtype, torch.float32)
    nll_N = torch.empty(len(targets_N), dtype=wide, device=logits_NV.device)
    mean_N = torch.empty_like(nll_N) if shaping != PLAIN else None
    for piece in pieces(logits_NV):
        target = targets_N[piece, None]
        log_p = logits_NV[piece].to(wide)
        torch.log_softmax(log_p, -1, out=log_p)
        nll_N[piece] = -log_p.gather(-1, target)[:, 0]
        if mean_N is not None:
            mean_N[piece] = -log_p.mean(-1)
        if weights_N is None:
            continue
        slope = log_p.exp_()  # softmax, in place
        slope.scatter_add_(-1, target, slope.new_full(target.shape, shaping.smoothing - 1.0))
        if shaping.smoothing:
            slope.sub_(shaping.smoothing / logits_NV.shape[1])
        factor = weights_N[piece] * nll_N[piece].neg().exp() if shaping.dft else weights_N[piece]
        logits_NV[piece] = slope.mul_(factor[:, None])
    return nll_N, mean_N


def _shaped(nll_N: Tensor, shaping: Shaping, mean_N: Tensor | None) -> Tensor:
    """The loss of each position; `mean_N` is the mean of -log p over the vocabulary."""
    if shaping.smoothing and mean_N is not None:
        nll_N = torch.lerp(nll_N, mean_N, shaping.smoothing)
    return nll_N * nll_N.detach().neg().exp() if shaping.dft else nll_N


def chunked_nll(
    hidden_ND: Tensor,
    head: nn.Module,
    targets_N: Tensor,
    weights_N: Tensor,
    finish: Callable[[Tensor], Tensor] | None = None,
    shaping: Shaping = PLAIN,
) -> tuple[Tensor, Tensor]:
    """(sum of weight · shaped loss, nll_N). `finish` is what the model does to its logits after the head, if anything.

    A plain linear head takes the fused form; any other (LoRA on the head, soft-capped logits) is recomputed in the
    backward pass instead. Both are exact. `nll_N` is always the plain -log p(target), without gradient.
    """
    weights_N = weights_N.to(torch.promote_types(hidden_ND.dtype, torch.float32))
    if type(head) is nn.Linear and finish is None:
        return _ChunkedNLL.apply(hidden_ND, head.weight, head.bias, targets_N, weights_N, shaping)  # type: ignore[return-value]
    nll_N, shaped_N = _recomputed(hidden_ND, head, targets_N, finish, shaping)
    return (shaped_N * weights_N).sum(), nll_N.detach()


def token_nll(
    hidden_ND: Tensor, head: nn.Module, targets_N: Tensor, finish: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """-log p(target) [N] with gradients of its own for every position, for losses that are no plain sum."""
    return _recomputed(hidden_ND, head, targets_N, finish, PLAIN)[0]


def _recomputed(
    hidden_ND: Tensor,
    head: nn.Module,
    targets_N: Tensor,
    finish: Callable[[Tensor], Tensor] | None,
    shaping: Shaping,
) -> tuple[Tensor, Tensor]:
    """(nll_N, shaped_N) through any head; the logits of a chunk are made again in the backward pass."""
    wide = torch.promote_types(hidden_ND.dtype, torch.float32)

    def part_nll(h: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        logits = head(h)
        logits = (logits if finish is None else finish(logits)).to(wide)
        nll = F.cross_entropy(logits, target, reduction="none")
        if shaping == PLAIN:
            return nll, nll
        return nll, _shaped(nll, shaping, logits.logsumexp(-1) - logits.mean(-1))

    parts = [
        checkpoint(part_nll, hidden_ND[part], targets_N[part], use_reentrant=False)
        for part in chunks(hidden_ND, head_width(head), any(p.requires_grad for p in head.parameters()))
    ]
    if not parts:
        none = hidden_ND.sum(-1).to(wide)
        return none, none
    nll, shaped = zip(*parts, strict=True)  # type: ignore[arg-type]
    return torch.cat(nll), torch.cat(shaped)


def head_width(head: nn.Module) -> int:
    """The vocabulary of a head, an adapted one too."""
    return getattr(head, "out_features", None) or head.weight.shape[0]  # type: ignore[union-attr,return-value]


def chunks(hidden_ND: Tensor, width: int, trained: bool) -> list[slice]:
    """Slices of the positions whose logits may exist together; `trained`: the head has gradients."""
    return _slices(hidden_ND, CPU_ROWS * (1 + trained), max(256, CHUNK_ELEMENTS // width))


def slabs(hidden_ND: Tensor, width: int) -> list[slice]:
    """Slices of the positions whose logits are made by one product, in the model's dtype."""
    return _slices(hidden_ND, max(CPU_ROWS, SLAB_ELEMENTS // width), max(256, CHUNK_ELEMENTS // width))


def pieces(logits: Tensor) -> list[slice]:
    """Slices of rows of logits to be worked on at once: on CPU few, elsewhere all."""
    return _slices(logits, max(1, PIECE_ELEMENTS // logits.shape[1]), len(logits))


def _slices(rows: Tensor, on_cpu: int, elsewhere: int) -> list[slice]:
    """All rows in slices of the size that fits their device."""
    count, size = len(rows), on_cpu if rows.device.type == "cpu" else elsewhere
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
