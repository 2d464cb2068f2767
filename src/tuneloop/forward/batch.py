"""Rendered examples → one Batch of tensors: concatenated rows (packed) or padded rows, and which positions are scored.

Shapes: T tokens of all rows together, R rows, L longest row, N scored positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from tuneloop.forward.attention import Layout


class Row(Protocol):
    """What a batch is made of; `render.template.Rendered` is one."""

    @property
    def ids(self) -> np.ndarray: ...
    @property
    def weights(self) -> np.ndarray: ...


@dataclass(frozen=True)
class Batch:
    """Inputs of a model and the positions whose next token is scored.

    Packed: `ids` and `positions` are [1, T], positions restart in each row, `layout` tells the rows apart.
    Padded: they are [R, L] with `mask` [R, L]; `layout` is None.
    `keep_N` indexes the flattened positions; `targets_N` are the tokens that follow them, `weights_N` their loss
    weights, `rows_N` the row that each belongs to.
    """

    ids: Tensor
    positions: Tensor
    mask: Tensor | None
    layout: Layout | None
    keep_N: Tensor
    targets_N: Tensor
    weights_N: Tensor
    rows_N: Tensor
    rows: int

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        moved = {
            field.name: value.to(device)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), (Tensor, Layout))
        }
        return replace(self, **moved)


def collate(rows: Sequence[Row], *, packed: bool, pad_id: int = 0) -> Batch:
    """One Batch from rendered rows. The token at t scores position t-1, so the first token of a row is never scored."""
    lengths = [len(row.ids) for row in rows]
    width = max(lengths)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]) if packed else np.arange(len(rows)) * width
    keep, targets, weights, owner = [], [], [], []
    for index, (row, start) in enumerate(zip(rows, starts, strict=True)):
        scored = np.flatnonzero(row.weights[1:])
        keep.append(scored + start)
        targets.append(row.ids[scored + 1])
        weights.append(row.weights[scored + 1])
        owner.append(np.full(len(scored), index))
    if packed:
        ids = np.concatenate([row.ids for row in rows])[None]
        positions = np.concatenate([np.arange(length) for length in lengths])[None]
        mask, layout = None, Layout.of(lengths)
    else:
        ids = np.full((len(rows), width), pad_id)
        for index, row in enumerate(rows):
            ids[index, : lengths[index]] = row.ids
        positions = np.broadcast_to(np.arange(width), ids.shape).copy()
        mask, layout = torch.from_numpy((np.arange(width) < np.array(lengths)[:, None]).astype(np.int64)), None
    return Batch(
        ids=_long(ids),
        positions=_long(positions),
        mask=mask,
        layout=layout,
        keep_N=_long(np.concatenate(keep)),
        targets_N=_long(np.concatenate(targets)),
        weights_N=torch.from_numpy(np.concatenate(weights).astype(np.float32)),
        rows_N=_long(np.concatenate(owner)),
        rows=len(rows),
    )


def real_positions(batch: Batch) -> tuple[Tensor, Tensor]:
    """(flat positions of the real tokens [T], the row of each [T]), in the order of the rows."""
    if batch.mask is not None:
        rows, _ = batch.mask.nonzero(as_tuple=True)
        return batch.mask.flatten().nonzero()[:, 0], rows
    starts_T = batch.positions[0] == 0
    return torch.arange(len(starts_T), device=starts_T.device), starts_T.cumsum(0) - 1


def everywhere(batch: Batch) -> Batch:
    """The same rows with every real position kept, the last of each row too, with weight 1 and no meaningful target."""
    keep_N, rows_N = real_positions(batch)
    ones_N = torch.ones(len(keep_N), device=keep_N.device)
    return replace(batch, keep_N=keep_N, rows_N=rows_N, targets_N=torch.zeros_like(keep_N), weights_N=ones_N)


def _long(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64))
