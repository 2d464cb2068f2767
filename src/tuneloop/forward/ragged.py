"""Attention within packed rows by kernels of PyTorch that take them as they are: FlashAttention for many sequences at
once (`torch.nn.attention.varlen`) and FlexAttention. Both are for GPUs; ways.py finds out which is faster.

Shapes: H query heads, K key/value heads, D head size, T tokens, N tokens of all rows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tuneloop.forward.layout import Layout, ToBlock

TILE = 128
"""Queries and keys of a block that FlexAttention computes or leaves out."""


@dataclass(frozen=True)
class Asked:
    """What a layer asks of its attention beside queries, keys and values."""

    scaling: float | None = None
    window: int | None = None
    softcap: float | None = None
    sinks_H: Tensor | None = None
    dropout: float = 0.0


def varlen(q: Tensor, k: Tensor, v: Tensor, layout: Layout, asked: Asked) -> Tensor | None:
    """q [1, H, T, D], k and v [1, K, T, D] → [1, T, H, D]; None where it does not compute what is asked.

    Keys of a beginning that rows share are laid out for each of them.
    """
    if asked.softcap is not None or asked.sinks_H is not None or asked.dropout or q.shape[3] != v.shape[3]:
        return None
    from torch.nn.attention.varlen import varlen_attn

    borders = layout.borders
    q_THD, k_NKD, v_NKD = (x[0].transpose(0, 1) for x in (q, k, v))
    if borders.gathered is not None:
        k_NKD, v_NKD = (ToBlock.apply(x, borders.gathered) for x in (k_NKD, v_NKD))  # type: ignore[misc]
    out_THD = varlen_attn(
        q_THD, k_NKD, v_NKD, borders.queries, borders.keys, borders.most_queries, borders.most_keys,
        scale=asked.scaling, window_size=(-1 if asked.window is None else asked.window - 1, 0),
        enable_gqa=q.shape[1] != k.shape[1],
    )  # fmt: skip
    assert isinstance(out_THD, Tensor)
    return out_THD[None]


def flex(q: Tensor, k: Tensor, v: Tensor, layout: Layout, asked: Asked) -> Tensor | None:
    """As `varlen`, also with capped scores and sinks; a shared beginning stands once."""
    if asked.dropout:
        return None
    from torch.nn.attention.flex_attention import AuxRequest

    found = _attend(q.device.type)(
        q, k, v, _capped(asked.softcap) if asked.softcap is not None else None, seen(layout, asked.window),
        scale=asked.scaling, enable_gqa=q.shape[1] != k.shape[1],
        return_aux=AuxRequest(lse=True) if asked.sinks_H is not None else None,
    )  # fmt: skip
    if asked.sinks_H is None:
        return found.transpose(1, 2)
    out, more = found
    # a sink adds exp(sink) to the sum of a head's shares (arXiv 2309.17453, section 3.2)
    kept = torch.sigmoid(more.lse - asked.sinks_H.to(more.lse.dtype)[None, :, None])
    return (out * kept[..., None].to(out.dtype)).transpose(1, 2)


@functools.cache
def _attend(device: str) -> Callable[..., Any]:
    """FlexAttention; only compiled it is fast, and saves memory."""
    from torch.nn.attention.flex_attention import flex_attention

    return flex_attention if device == "cpu" else torch.compile(flex_attention, dynamic=True, fullgraph=True)


@functools.cache
def _capped(softcap: float) -> Callable[..., Tensor]:
    def cap(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return softcap * torch.tanh(score / softcap)

    return cap


def seen(layout: Layout, window: int | None) -> Any:
    """FlexAttention's mask of a layout: which tiles of queries and keys it computes, and which of their scores count.

    The tokens of a branch of the tree follow one another, so a key is seen from its own place up to the last token of
    the rows that it belongs to.
    """
    from torch.nn.attention.flex_attention import BlockMask

    made = layout.masks
    if window not in made:
        lists = [part for kind in tiles(layout, window) for part in _lists(kind, layout.device)]
        end_T, place_T = (torch.from_numpy(x).to(layout.device) for x in layout.sight)
        count = layout.tree.tokens
        made[window] = BlockMask.from_kv_blocks(
            *lists, BLOCK_SIZE=TILE, mask_mod=_sees(end_T, place_T, window), seq_lengths=(count, count)
        )
    return made[window]


def _sees(end_T: Tensor, place_T: Tensor, window: int | None) -> Callable[..., Tensor]:
    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (query < end_T[key])

    if window is None:
        return sees

    def near(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return sees(batch, head, query, key) & (place_T[query] - place_T[key] < window)

    return near


def tiles(layout: Layout, window: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Tiles [queries, keys] of which some scores may count, and of which all do; the second are none of the first."""
    (end_T, place_T), tokens = layout.sight, layout.tree.tokens
    starts = np.arange(0, tokens, TILE)
    last = np.minimum(starts + TILE, tokens)
    before = starts[:, None] > starts
    of = {name: np.maximum.reduceat(x, starts) for name, x in (("end", end_T), ("place", place_T))}
    least = {name: np.minimum.reduceat(x, starts) for name, x in (("end", end_T), ("place", place_T))}
    some = before & (of["end"] > starts[:, None]) | np.eye(len(starts), dtype=np.bool_)
    every = before & (least["end"] >= last[:, None])
    if window is not None:
        some &= least["place"][:, None] - of["place"] < window
        every &= of["place"][:, None] - least["place"] < window
    return some & ~every, every


def _lists(tiles: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    """How many tiles of keys [1, 1, Q] each tile of queries has, and their numbers [1, 1, Q, K], those first."""
    order = np.argsort(~tiles, axis=1, kind="stable")
    return tuple(torch.from_numpy(x.astype(np.int32))[None, None].to(device) for x in (tiles.sum(1), order))  # type: ignore[return-value]
