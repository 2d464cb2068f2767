"""Causal attention within each of several rows of one sequence, for transformers models that take a backend.

Everything else in the model runs on the T tokens without padding; only here are rows laid out as a padded block:
queries [R, Q], keys and values [R, L]. A row whose first tokens another row has brought (tree.py) has fewer queries
than keys. Padding stands on the right, so the causal mask alone keeps real tokens from seeing it.
Shapes: H query heads, K key/value heads, D head size, T tokens, R rows, Q and L longest row of a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel

from tuneloop.forward import fused
from tuneloop.forward.blocked import blocked_attention
from tuneloop.forward.hasten import hasten, own_forms
from tuneloop.forward.kernels import kernels_for
from tuneloop.forward.layout import Layout, Places

NAME = "tuneloop_packed"
SHORT = 1024
"""Up to this many keys CPU attention keeps its shares [R, H, Q, L] for the backward pass."""


class Unsupported(Exception):
    """The model's attention asks for something that the packed form does not compute (position biases)."""


class _ToBlock(torch.autograd.Function):
    """Tokens [T, H, D] → padded block [X, H, D]. Where tokens occur once, the backward is a plain selection too."""

    @staticmethod
    def forward(ctx: Any, tokens_THD: Tensor, places: Places) -> Tensor:
        ctx.places, ctx.shape = places, tokens_THD.shape
        return tokens_THD.index_select(0, places.gather)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        grad, places = grads[0].index_select(0, ctx.places.places), ctx.places
        if places.once:
            out = grad.new_zeros(ctx.shape)
            out[places.tokens] = grad
            return out, None
        wide = torch.promote_types(grad.dtype, torch.float32)  # a shared token may have a gradient from every row
        return grad.new_zeros(ctx.shape, dtype=wide).index_add_(0, places.tokens, grad.to(wide)).to(grad.dtype), None


class _FromBlock(torch.autograd.Function):
    """Padded block [X, H, D] → the tokens that count in it."""

    @staticmethod
    def forward(ctx: Any, block_XHD: Tensor, places: Places) -> Tensor:
        ctx.places, ctx.shape = places, block_XHD.shape
        return block_XHD.index_select(0, places.places)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        out = grads[0].new_zeros(ctx.shape)
        out[ctx.places.places] = grads[0]
        return out, None


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    layout: Layout | None = None,
    prefix: Sequence[tuple[Tensor, Tensor]] | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """The attention backend: query [1, H, T, D], key and value [1, K, T, D] → [1, T, H, D].

    `prefix` are keys and values [1, K, V, D] of each layer that stand before every row (prefix tuning).
    `s_aux` [H] are attention sinks: a score of each head that takes its share and gives nothing (gpt-oss). Raises
    Unsupported for what it does not compute; the caller then takes the padded form.
    """
    if layout is None or attention_mask is not None:
        raise Unsupported("the model does not hand the row layout to its attention")
    if others.get("position_bias") is not None:
        raise Unsupported("attention with position_bias")
    kernels = kernels_for(query)
    plain = prefix is None and softcap is None and s_aux is None and dropout == 0
    if kernels is not None and plain and query.dtype is key.dtype is value.dtype and value.shape[3] == key.shape[3]:
        factor = query.shape[-1] ** -0.5 if scaling is None else scaling
        return fused.attention(kernels, query, key, value, layout.for_kernels, sliding_window, factor), None
    parts = []
    for block in layout.blocks:
        q = _block_of(query, block.rows, block.queries)
        k, v = (_block_of(x, block.rows, block.keys) for x in (key, value))
        if prefix is not None:
            before_k, before_v = (x.expand(block.rows, -1, -1, -1) for x in prefix[module.layer_idx])  # type: ignore[index]
            k, v = torch.cat([before_k, k], 2), torch.cat([before_v, v], 2)
        out = _causal(q, k, v, scaling, dropout, sliding_window, softcap, s_aux)
        out_XHD = out.transpose(1, 2).reshape(block.rows * block.width, out.shape[1], out.shape[3])
        parts.append(_FromBlock.apply(out_XHD, block.queries))
    joined_THD = parts[0] if len(parts) == 1 else torch.cat(parts)
    return joined_THD.index_select(0, layout.order_T)[None], None


def _block_of(x: Tensor, rows: int, places: Places) -> Tensor:
    """[1, H, T, D] → [R, H, Q or L, D]."""
    padded: Tensor = _ToBlock.apply(x[0].transpose(0, 1), places)  # type: ignore[assignment]
    return padded.view(rows, -1, *padded.shape[1:]).transpose(1, 2)


def _causal(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scaling: float | None,
    dropout: float,
    window: int | None,
    softcap: float | None,
    sinks_H: Tensor | None,
) -> Tensor:
    length = k.shape[2]
    plain = softcap is None and sinks_H is None
    windowed = window is not None and window < length
    in_blocks = plain and q.device.type == "cpu" and length <= SHORT and dropout == 0
    mask = None
    if windowed or (q.shape[2] < length and not in_blocks):
        at = torch.arange(length, device=q.device)
        of = at[length - q.shape[2] :, None]
        mask = of >= at if window is None else (of >= at) & (of - at < window)
    if in_blocks:
        return blocked_attention(q, k, v, mask, scaling)
    if not plain:
        return written_out(q, k, v, scaling, dropout, mask, softcap, sinks_H)
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scaling,
        enable_gqa=q.shape[1] != k.shape[1],
    )  # fmt: skip


def written_out(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scaling: float | None,
    dropout: float,
    mask: Tensor | None,
    softcap: float | None,
    sinks_H: Tensor | None,
) -> Tensor:
    """Attention whose scores no fused kernel computes.

    Gemma-2 squashes them by softcap·tanh(scores/softcap) (arXiv 2408.00118, section 2); gpt-oss adds one score a head
    to the softmax's denominator (arXiv 2309.17453, section 3.2).
    """
    repeats = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
    scores = (q @ k.transpose(2, 3)) * (q.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is None:
        mask = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool, device=q.device).tril()
    scores = scores.masked_fill(~mask, float("-inf"))
    if sinks_H is not None:
        scores = torch.cat([scores, sinks_H.to(scores.dtype)[None, :, None, None].expand(*scores.shape[:3], 1)], dim=-1)
    wide = torch.promote_types(scores.dtype, torch.float32)
    shares = scores.softmax(-1, dtype=wide).to(v.dtype)[..., : k.shape[2]]
    return F.dropout(shares, dropout, training=dropout > 0) @ v


@contextmanager
def standard(model: PreTrainedModel) -> Iterator[None]:
    """The model's own attention inside the block, whatever it has outside."""
    packed = model.config._attn_implementation == NAME
    if packed:
        use_standard(model)
    try:
        yield
    finally:
        if packed:
            use_packed(model)


def use_packed(model: PreTrainedModel) -> None:
    """Makes a model attend within packed rows, faster forms beside; generation then needs `use_standard` first."""
    AttentionInterface.register(NAME, packed_attention)
    model.set_attn_implementation(NAME)
    hasten(model)


def use_standard(model: PreTrainedModel) -> None:
    """The model's own attention and forms again (padded batches, generation with a cache)."""
    model.set_attn_implementation("sdpa" if model._supports_sdpa else "eager")
    own_forms(model)
