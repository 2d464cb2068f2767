"""Rendered examples → one Batch of tensors: concatenated rows (packed) or padded rows, and which positions are scored.

Shapes: T tokens computed, R rows, L longest row, N scored positions. Packed rows that share their first tokens have
these once among the T.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from tuneloop.forward.layout import Layout
from tuneloop.forward.tree import Tree


class Row(Protocol):
    """What a batch is made of; `render.template.Rendered` is one."""

    @property
    def ids(self) -> np.ndarray: ...
    @property
    def weights(self) -> np.ndarray: ...


@dataclass(frozen=True)
class Batch:
    """Inputs of a model and the positions whose next token is scored.

    Packed: `ids` and `positions` are [1, T], positions are those within the row, `layout` tells the rows apart.
    Padded: they are [R, L] with `mask` [R, L]; `layout` is None.
    `keep_N` indexes the flattened positions, row by row, a shared one once for each row that scores it; `targets_N` are
    the tokens that follow them, `weights_N` their loss weights, `rows_N` the row that each belongs to.
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
    source: tuple[Row, ...] = ()
    """The rows that it was made of."""

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        moved = {
            field.name: value.to(device)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), (Tensor, Layout))
        }
        return replace(self, **moved)


def collate(rows: Sequence[Row], *, packed: bool, pad_id: int = 0, share: bool = False) -> Batch:
    """One Batch from rendered rows. The token at t scores position t-1, so the first token of a row is never scored.

    `share`: packed rows that begin with the same tokens have them once, where that saves enough (tree.py).
    """
    ids = [row.ids for row in rows]
    lengths = [len(row) for row in ids]
    width = max(lengths)
    tree = Tree.of(ids) if share and packed else Tree.flat(lengths)
    keep, targets, weights, owner = [], [], [], []
    for index, row in enumerate(rows):
        scored = np.flatnonzero(row.weights[1:])
        keep.append(tree.paths[index][scored] if packed else scored + index * width)
        targets.append(row.ids[scored + 1])
        weights.append(row.weights[scored + 1])
        owner.append(np.full(len(scored), index))
    if packed:
        placed = tree.laid_out(ids)[None]
        positions = tree.laid_out([np.arange(length) for length in lengths])[None]
        mask, layout = None, Layout.of(tree)
    else:
        placed = np.full((len(rows), width), pad_id)
        for index, row in enumerate(ids):
            placed[index, : lengths[index]] = row
        positions = np.broadcast_to(np.arange(width), placed.shape).copy()
        mask, layout = torch.from_numpy((np.arange(width) < np.array(lengths)[:, None]).astype(np.int64)), None
    return Batch(
        ids=_long(placed),
        positions=_long(positions),
        mask=mask,
        layout=layout,
        keep_N=_long(np.concatenate(keep)),
        targets_N=_long(np.concatenate(targets)),
        weights_N=torch.from_numpy(np.concatenate(weights).astype(np.float32)),
        rows_N=_long(np.concatenate(owner)),
        rows=len(rows),
        source=tuple(rows),
    )


def real_positions(batch: Batch) -> tuple[Tensor, Tensor]:
    """(flat positions of the real tokens [T], the row of each [T]); of shared tokens, the first row that has them."""
    if batch.layout is None:
        assert batch.mask is not None
        rows, _ = batch.mask.nonzero(as_tuple=True)
        return batch.mask.flatten().nonzero()[:, 0], rows
    rows_T = batch.layout.rows_T()
    return torch.arange(len(rows_T), device=rows_T.device), rows_T


def everywhere(batch: Batch) -> Batch:
    """The same rows with every real position kept, the last of each row too, with weight 1 and no meaningful target."""
    if batch.layout is None:
        keep_N, rows_N = real_positions(batch)
    else:
        keep_N, rows_N = batch.layout.paths_N, batch.layout.rows_N()
    ones_N = torch.ones(len(keep_N), device=keep_N.device)
    return replace(batch, keep_N=keep_N, rows_N=rows_N, targets_N=torch.zeros_like(keep_N), weights_N=ones_N)


def _long(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64))
