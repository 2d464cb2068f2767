"""Causal attention within each of several rows of one sequence, for transformers models that take a backend.

Everything else in the model runs on the T tokens without padding; only here are rows laid out as a padded block:
queries [R, Q], keys and values [R, L]. A row whose first tokens another row has brought (tree.py) has fewer queries
than keys. Padding stands on the right, so the causal mask alone keeps real tokens from seeing it.
Shapes: H query heads, K key/value heads, D head size, T tokens, R rows, Q and L longest row of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel

from tuneloop.forward import fused
from tuneloop.forward.blocked import blocked_attention
from tuneloop.forward.hasten import hasten, own_forms
from tuneloop.forward.kernels import Kernels, kernels_for
from tuneloop.forward.layout import FromBlock, Layout, Places, ToBlock
from tuneloop.forward.ragged import Asked, flex, varlen

NAME = "tuneloop_packed"
SHORT = 1024
"""Up to this many keys CPU attention keeps its shares [R, H, Q, L] for the backward pass."""
Way = Callable[[Tensor, Tensor, Tensor, Layout, Asked], Tensor | None]
"""q [1, H, T, D], k and v [1, K, T, D] → [1, T, H, D], or None where it does not compute what is asked."""


class Unsupported(Exception):
    """The model's attention asks for something that the packed form does not compute (position biases)."""


def compiled(q: Tensor, k: Tensor, v: Tensor, layout: Layout, asked: Asked) -> Tensor | None:
    """By what is compiled for this CPU, where that computes what is asked."""
    kernels = kernels_for(q)
    plain = asked.softcap is None and asked.sinks_H is None and asked.dropout == 0
    alike = q.dtype is k.dtype is v.dtype and v.shape[3] == k.shape[3]
    if not isinstance(kernels, Kernels) or not plain or not alike:
        return None
    factor = q.shape[-1] ** -0.5 if asked.scaling is None else asked.scaling
    return fused.attention(kernels, q, k, v, layout.for_kernels, asked.window, factor)


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
    by: Way = compiled,
    **others: Any,
) -> tuple[Tensor, None]:
    """The attention backend: query [1, H, T, D], key and value [1, K, T, D] → [1, T, H, D].

    `prefix` are keys and values [1, K, V, D] of each layer that stand before every row (prefix tuning).
    `s_aux` [H] are attention sinks: a score of each head that takes its share and gives nothing (gpt-oss). What `by`
    does not compute, padded blocks do. Raises Unsupported for what neither does; the caller then takes the padded form.
    """
    if layout is None or attention_mask is not None:
        raise Unsupported("the model does not hand the row layout to its attention")
    if others.get("position_bias") is not None:
        raise Unsupported("attention with position_bias")
    asked = Asked(scaling, sliding_window, softcap, s_aux, dropout)
    if prefix is not None:
        return _in_blocks(query, key, value, layout, asked, prefix[module.layer_idx]), None  # type: ignore[index]
    found = by(query, key, value, layout, asked)
    return _in_blocks(query, key, value, layout, asked) if found is None else found, None


WAYS: dict[str, Way] = {NAME: compiled, f"{NAME}_varlen": varlen, f"{NAME}_flex": flex}
"""By the name of the backend; the first is for a CPU, and for all that has no other."""


def _in_blocks(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, asked: Asked, prefix: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    parts = []
    for block in layout.blocks:
        q = _block_of(query, block.rows, block.queries)
        k, v = (_block_of(x, block.rows, block.keys) for x in (key, value))
        if prefix is not None:
            before_k, before_v = (x.expand(block.rows, -1, -1, -1) for x in prefix)
            k, v = torch.cat([before_k, k], 2), torch.cat([before_v, v], 2)
        out = _causal(q, k, v, asked)
        out_XHD = out.transpose(1, 2).reshape(block.rows * block.width, out.shape[1], out.shape[3])
        parts.append(FromBlock.apply(out_XHD, block.queries))
    joined_THD = parts[0] if len(parts) == 1 else torch.cat(parts)
    return joined_THD.index_select(0, layout.order_T)[None]


def _block_of(x: Tensor, rows: int, places: Places) -> Tensor:
    """[1, H, T, D] → [R, H, Q or L, D]."""
    padded: Tensor = ToBlock.apply(x[0].transpose(0, 1), places)  # type: ignore[assignment]
    return padded.view(rows, -1, *padded.shape[1:]).transpose(1, 2)


def _causal(q: Tensor, k: Tensor, v: Tensor, asked: Asked) -> Tensor:
    length, window = k.shape[2], asked.window
    plain = asked.softcap is None and asked.sinks_H is None
    windowed = window is not None and window < length
    in_blocks = plain and q.device.type == "cpu" and length <= SHORT and asked.dropout == 0
    mask = None
    if windowed or (q.shape[2] < length and not in_blocks):
        at = torch.arange(length, device=q.device)
        of = at[length - q.shape[2] :, None]
        mask = of >= at if window is None else (of >= at) & (of - at < window)
    if in_blocks:
        return blocked_attention(q, k, v, mask, asked.scaling)
    if not plain:
        return written_out(q, k, v, mask, asked)
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, dropout_p=asked.dropout, is_causal=mask is None, scale=asked.scaling,
        enable_gqa=q.shape[1] != k.shape[1],
    )  # fmt: skip


def written_out(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, asked: Asked) -> Tensor:
    """Attention whose scores no fused kernel computes.

    Gemma-2 squashes them by softcap·tanh(scores/softcap) (arXiv 2408.00118, section 2); gpt-oss adds one score a head
    to the softmax's denominator (arXiv 2309.17453, section 3.2).
    """
    repeats = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
    scores = (q @ k.transpose(2, 3)) * (q.shape[-1] ** -0.5 if asked.scaling is None else asked.scaling)
    if asked.softcap is not None:
        scores = asked.softcap * torch.tanh(scores / asked.softcap)
    if mask is None:
        mask = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool, device=q.device).tril()
    scores = scores.masked_fill(~mask, float("-inf"))
    if asked.sinks_H is not None:
        sinks_H = asked.sinks_H.to(scores.dtype)
        scores = torch.cat([scores, sinks_H[None, :, None, None].expand(*scores.shape[:3], 1)], dim=-1)
    wide = torch.promote_types(scores.dtype, torch.float32)
    shares = scores.softmax(-1, dtype=wide).to(v.dtype)[..., : k.shape[2]]
    return F.dropout(shares, asked.dropout, training=asked.dropout > 0) @ v


@contextmanager
def standard(model: PreTrainedModel) -> Iterator[None]:
    """The model's own attention inside the block, whatever it has outside."""
    way = model.config._attn_implementation
    if way in WAYS:
        use_standard(model)
    try:
        yield
    finally:
        if way in WAYS:
            use_packed(model, way)


def use_packed(model: PreTrainedModel, way: str = NAME) -> None:
    """Makes a model attend within packed rows, faster forms beside; generation then needs `use_standard` first."""
    AttentionInterface.register(way, partial(packed_attention, by=WAYS[way]))
    model.set_attn_implementation(way)
    hasten(model)


def use_standard(model: PreTrainedModel) -> None:
    """The model's own attention and forms again (padded batches, generation with a cache)."""
    model.set_attn_implementation("sdpa" if model._supports_sdpa else "eager")
    own_forms(model)
