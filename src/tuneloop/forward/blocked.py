"""Attention on CPU by plain matrix products, a few queries at a time: keys that none of them sees cost nothing.

torch's CPU kernels are made for long rows. There and back, they take as long in bf16 (fp32), on two AVX512-BF16 cores:
for rows of 53 tokens 1.2 (0.9) times, of 100 1.3 (1.0), of 200 1.9 (1.3), of 400 2.8 (1.6), of 800 1.9 (1.4).
Shapes: R rows, H query heads (G for each of K key/value heads), Q queries, L keys, D head size, E value size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

QUERIES = 48
"""Queries of one block: fewer see less that they must not see, more make larger products."""


@contextmanager
def _exact_in_bf16(narrow: bool) -> Iterator[None]:
    """Float32 products by bfloat16 instructions, where operands come from bfloat16: exact, and summed in float32."""
    setting: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]  # set by name at import
    before = setting.fp32_precision
    if narrow:
        setting.fp32_precision = "bf16"
    try:
        yield
    finally:
        setting.fp32_precision = before


def _spans(queries: int, keys: int, mask: Tensor | None) -> list[tuple[int, int, int, int]]:
    """Blocks (first query, end of queries, first key, end of keys) with all keys that one of the queries sees."""
    count = max(1, round(queries / QUERIES))
    edges = [queries * i // count for i in range(count + 1)]
    spans = []
    for start, end in pairwise(edges):
        first, last = 0, end + keys - queries
        if mask is not None:
            seen = mask[..., start:end, :].reshape(-1, keys).any(0).nonzero()
            first, last = (int(seen[0]), int(seen[-1]) + 1) if len(seen) else (0, 1)
        spans.append((start, end, first, last))
    return spans


class _Blocked(torch.autograd.Function):
    """Scores and their slopes are float32; shares, and the products with them, are in the dtype of the input."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
        (rows, heads, queries, size), (kept, keys) = q.shape, k.shape[1:3]
        groups, dtype, wide = heads // kept, q.dtype, torch.promote_types(q.dtype, torch.float32)
        spans = _spans(queries, keys, mask)
        k, v = k.reshape(rows * kept, keys, size), v.reshape(rows * kept, keys, -1)
        k_wide = k.to(wide)
        out = q.new_empty(rows, queries, kept, groups, v.shape[-1])
        asked, shares = [], []
        for start, end, first, last in spans:
            q_part = q[:, :, start:end].reshape(rows * kept, -1, size)
            scores = q_part.new_empty(len(q_part), q_part.shape[1], last - first, dtype=wide)
            with _exact_in_bf16(dtype is torch.bfloat16):
                torch.baddbmm(
                    scores, q_part.to(wide), k_wide[:, first:last].transpose(1, 2), beta=0, alpha=scale, out=scores
                )
            _hide(scores.view(rows, kept, groups, end - start, -1), mask, start, end, first, last)
            share = torch.softmax(scores, -1, out=scores).to(dtype)
            part = torch.bmm(share, v[:, first:last])
            out[:, start:end] = part.view(rows, kept, groups, end - start, -1).permute(0, 3, 1, 2, 4)
            asked.append(q_part)
            shares.append(share)
        ctx.save_for_backward(k, v, *asked, *shares)
        ctx.spans, ctx.scale, ctx.rows = spans, scale, rows
        return out.view(rows, queries, heads, -1).transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        k, v, *saved = ctx.saved_tensors
        asked, shares = saved[: len(ctx.spans)], saved[len(ctx.spans) :]
        rows, (_, heads, queries, _) = ctx.rows, grads[0].shape
        kept, dtype, wide = len(k) // rows, k.dtype, torch.promote_types(k.dtype, torch.float32)
        grad_q = k.new_empty(rows, queries, kept, heads // kept, k.shape[-1])
        grad_k, grad_v = torch.zeros_like(k, dtype=wide), torch.zeros_like(v, dtype=wide)
        v_wide = v.to(wide)
        for (start, end, first, last), q_part, share in zip(ctx.spans, asked, shares, strict=True):
            slope = grads[0][:, :, start:end].reshape(rows * kept, -1, v.shape[-1])
            grad_v[:, first:last] += torch.bmm(share.transpose(1, 2), slope)
            with _exact_in_bf16(dtype is torch.bfloat16):
                of_share = torch.bmm(slope.to(wide), v_wide[:, first:last].transpose(1, 2))
            of_score = torch.ops.aten._softmax_backward_data(of_share, share.to(wide), -1, wide).to(dtype)
            part = torch.bmm(of_score, k[:, first:last]).mul_(ctx.scale)
            grad_q[:, start:end] = part.view(rows, kept, -1, end - start, k.shape[-1]).permute(0, 3, 1, 2, 4)
            grad_k[:, first:last] += torch.bmm(of_score.transpose(1, 2), q_part)
        return (
            grad_q.view(rows, queries, heads, -1).transpose(1, 2),
            grad_k.mul_(ctx.scale).to(dtype).view(rows, kept, *k.shape[1:]),
            grad_v.to(dtype).view(rows, kept, *v.shape[1:]),
            None,
            None,
        )


def _hide(scores: Tensor, mask: Tensor | None, start: int, end: int, first: int, last: int) -> None:
    """Makes the scores [R, K, G, queries, keys] of what must not be seen as small as can be.

    Not -inf: a row of padding that sees nothing would become NaN, and so would the gradients of all it does not touch.
    """
    lowest = torch.finfo(scores.dtype).min
    if mask is not None:
        part = mask[..., start:end, first:last]
        scores.masked_fill_(~(part if part.ndim == 2 else part[:, :, None]), lowest)
        return
    own = end - start  # causal: only the last of the keys can come after a query
    later = torch.ones(own, own, dtype=torch.bool, device=scores.device).triu_(1)
    scores[..., -own:].masked_fill_(later, lowest)


def blocked_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    """q [R, H, Q, D], k [R, K, L, D], v [R, K, L, E] → [R, H, Q, E].

    `mask` [Q, L] or [R, 1, Q, L] is true where a query sees a key; None: the queries are the last Q of L places, and
    each sees what is not after it. What a query that sees nothing gives is finite, and without meaning.
    """
    out: Tensor = _Blocked.apply(q, k, v, mask, q.shape[-1] ** -0.5 if scale is None else scale)  # type: ignore[assignment]
    return out
