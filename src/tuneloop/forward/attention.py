"""Causal attention within each of several concatenated rows, for transformers models that take an attention backend.

Everything else in the model runs on the T concatenated tokens without padding; only here are rows laid out as a padded
block [R, L]. Padding stands on the right, so the causal mask alone keeps real tokens from seeing it.
Shapes: H query heads, K key/value heads, D head size, T tokens, R rows, L longest row of a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel

NAME = "tuneloop_packed"
WASTE = 1.25  # padded ÷ real tokens that a block may have before its rows are split into further blocks
SHORT = 512  # up to this length CPU attention runs in float32: the bf16 flash kernel is the slower one there


class Unsupported(Exception):
    """The model's attention asks for something that the packed form does not compute (position biases)."""


@dataclass(frozen=True)
class Block:
    """Rows of similar length: `gather_RL` picks tokens into the padded block, `scatter_T` finds them there again."""

    rows: int
    width: int
    gather_RL: Tensor
    tokens_T: Tensor
    scatter_T: Tensor


@dataclass(frozen=True)
class Layout:
    """Where the rows of a packed batch lie. Blocks cover all tokens exactly once."""

    blocks: tuple[Block, ...]
    order_T: Tensor
    """Position of each token in the blocks' outputs laid end to end."""
    lengths: tuple[int, ...]
    """Tokens of each row."""

    @classmethod
    def of(cls, lengths: Sequence[int]) -> Layout:
        """Blocks of similar length; one block where the padding is small anyway."""
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        blocks, order, done = [], np.empty(int(sum(lengths)), dtype=np.int64), 0
        for group in _groups(lengths):
            width = max(lengths[row] for row in group)
            inside = np.arange(width)
            sizes = np.array([lengths[row] for row in group])
            real_RL = inside < sizes[:, None]
            gather_RL = np.where(real_RL, starts[group][:, None] + inside, starts[group][:, None])
            tokens_T = gather_RL[real_RL]
            order[tokens_T] = np.arange(done, done + len(tokens_T))
            done += len(tokens_T)
            blocks.append(
                Block(
                    rows=len(group),
                    width=width,
                    gather_RL=torch.from_numpy(gather_RL.reshape(-1)),
                    tokens_T=torch.from_numpy(tokens_T),
                    scatter_T=torch.from_numpy(np.flatnonzero(real_RL.reshape(-1))),
                )
            )
        return cls(tuple(blocks), torch.from_numpy(order), tuple(lengths))

    def to(self, device: torch.device) -> Layout:
        """The same layout with its indices on a device."""
        moved = tuple(
            Block(b.rows, b.width, b.gather_RL.to(device), b.tokens_T.to(device), b.scatter_T.to(device))
            for b in self.blocks
        )
        return Layout(moved, self.order_T.to(device), self.lengths)


def _groups(lengths: Sequence[int]) -> list[list[int]]:
    rows = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    groups: list[list[int]] = [[]]
    real = 0
    for row in rows:
        group = groups[-1]
        if group and (len(group) + 1) * lengths[group[0]] > WASTE * (real + lengths[row]):
            groups.append(group := [])
            real = 0
        group.append(row)
        real += lengths[row]
    return groups


class _ToBlock(torch.autograd.Function):
    """Tokens [T, H, D] → padded block [R*L, H, D]. The backward is a plain selection too, as each token occurs once."""

    @staticmethod
    def forward(ctx: Any, tokens_THD: Tensor, block: Block) -> Tensor:
        ctx.block, ctx.shape = block, tokens_THD.shape
        return tokens_THD.index_select(0, block.gather_RL)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        out = grads[0].new_zeros(ctx.shape)
        out[ctx.block.tokens_T] = grads[0].index_select(0, ctx.block.scatter_T)
        return out, None


class _FromBlock(torch.autograd.Function):
    """Padded block [R*L, H, D] → its real tokens [T, H, D]."""

    @staticmethod
    def forward(ctx: Any, block_XHD: Tensor, block: Block) -> Tensor:
        ctx.block, ctx.shape = block, block_XHD.shape
        return block_XHD.index_select(0, block.scatter_T)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        out = grads[0].new_zeros(ctx.shape)
        out[ctx.block.scatter_T] = grads[0]
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
    parts = []
    for block in layout.blocks:
        q, k, v = (_block_of(x, block) for x in (query, key, value))
        if prefix is not None:
            before_k, before_v = (x.expand(block.rows, -1, -1, -1) for x in prefix[module.layer_idx])  # type: ignore[index]
            k, v = torch.cat([before_k, k], 2), torch.cat([before_v, v], 2)
        out = _causal(q, k, v, scaling, dropout, sliding_window, softcap, s_aux)
        out_XHD = out.transpose(1, 2).reshape(block.rows * block.width, out.shape[1], out.shape[3])
        parts.append(_FromBlock.apply(out_XHD, block))
    joined_THD = parts[0] if len(parts) == 1 else torch.cat(parts)
    return joined_THD.index_select(0, layout.order_T)[None], None


def _block_of(x: Tensor, block: Block) -> Tensor:
    """[1, H, T, D] → [R, H, L, D]."""
    tokens_THD = x[0].transpose(0, 1)
    padded: Tensor = _ToBlock.apply(tokens_THD, block)  # type: ignore[assignment]
    return padded.view(block.rows, block.width, *padded.shape[1:]).transpose(1, 2)


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
    length, dtype = k.shape[2], q.dtype
    mask = None
    if q.shape[2] < length or (window is not None and window < length):
        at = torch.arange(length, device=q.device)
        of = at[length - q.shape[2] :, None]
        mask = of >= at if window is None else (of >= at) & (of - at < window)
    if softcap is not None or sinks_H is not None:
        return _written_out(q, k, v, scaling, dropout, mask, softcap, sinks_H)
    upcast = q.device.type == "cpu" and dtype is not torch.float64 and length <= SHORT
    if upcast:
        q, k, v = q.float(), k.float(), v.float()
    out = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scaling,
        enable_gqa=q.shape[1] != k.shape[1],
    )  # fmt: skip
    return out.to(dtype)


def _written_out(
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
    """Makes a model attend within packed rows; generation then needs `use_standard` first."""
    AttentionInterface.register(NAME, packed_attention)
    model.set_attn_implementation(NAME)


def use_standard(model: PreTrainedModel) -> None:
    """The model's own attention again (padded batches, generation with a cache)."""
    model.set_attn_implementation("sdpa" if model._supports_sdpa else "eager")
