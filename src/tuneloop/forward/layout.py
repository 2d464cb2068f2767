"""Where the rows of a packed batch lie, and the padded blocks [R, Q] × [R, L] that attention makes of them.

Shapes as in attention.py: T tokens, R rows of a block with Q queries and L keys at most, N tokens of all rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from tuneloop.forward.kernels import Rows
from tuneloop.forward.tree import Tree

WASTE = 1.5
"""Scores computed ÷ scores needed that a block may have before its rows are split into further blocks."""
SPARE = 8192
"""Scores that may be computed in vain in any case: a further block costs more."""


@dataclass(frozen=True)
class Places:
    """Which of the T tokens stand where in a padded block [R, Q] or [R, L], flat."""

    gather: Tensor
    """The token at each of the block's places; at padding, any."""
    tokens: Tensor
    """The tokens that count in this block, and where each stands in it."""
    places: Tensor
    once: bool
    """No token counts twice."""

    def to(self, device: torch.device) -> Places:
        """The same on a device."""
        return Places(self.gather.to(device), self.tokens.to(device), self.places.to(device), self.once)


@dataclass(frozen=True)
class Block:
    """Rows of similar shape. The last query and the last key of a row are the same token."""

    rows: int
    width: int
    """Q."""
    queries: Places
    keys: Places

    def to(self, device: torch.device) -> Block:
        """The same on a device."""
        return Block(self.rows, self.width, self.queries.to(device), self.keys.to(device))


@dataclass(frozen=True)
class Layout:
    """Where the rows of a packed batch lie. Blocks cover the queries of all tokens exactly once."""

    blocks: tuple[Block, ...]
    order_T: Tensor
    """Position of each token in the blocks' outputs laid end to end."""
    lengths: tuple[int, ...]
    """Tokens of each row."""
    known: tuple[int, ...]
    """How many of them, at its beginning, another row has brought."""
    paths_N: Tensor
    """The tokens of all rows, row by row; those that rows share occur several times."""

    @cached_property
    def for_kernels(self) -> Rows:
        """The same for what is compiled."""
        return Rows.of(self.paths_N, self.lengths, self.known, len(self.order_T))

    @classmethod
    def of(cls, tree: Tree) -> Layout:
        """Blocks of similar shape; one block where the padding is small anyway."""
        lengths = tuple(map(len, tree.paths))
        blocks = tuple(_block(tree, group) for group in _groups(tree))
        order_T = torch.cat([block.queries.tokens for block in blocks]).argsort()
        return cls(blocks, order_T, lengths, tree.known, torch.from_numpy(np.concatenate(tree.paths)))

    def to(self, device: torch.device) -> Layout:
        """The same layout with its indices on a device."""
        moved = tuple(block.to(device) for block in self.blocks)
        return Layout(moved, self.order_T.to(device), self.lengths, self.known, self.paths_N.to(device))

    @property
    def shared(self) -> bool:
        """Whether some token belongs to several rows."""
        return len(self.paths_N) > len(self.order_T)

    def rows_N(self) -> Tensor:
        """The row of each entry of `paths_N`."""
        device = self.paths_N.device
        return torch.arange(len(self.lengths), device=device).repeat_interleave(torch.tensor(self.lengths).to(device))

    def rows_T(self) -> Tensor:
        """The row of each token; of those that several rows share, the first of these."""
        found = self.order_T.new_full(self.order_T.shape, len(self.lengths))
        return found.scatter_reduce_(0, self.paths_N, self.rows_N(), "amin")

    def copies_T(self) -> Tensor:
        """How many rows each token belongs to."""
        return self.paths_N.bincount(minlength=len(self.order_T))


def _groups(tree: Tree) -> list[list[int]]:
    """Rows that make a block each: those that know about as much of their beginning and are about as long."""
    rows = [row for row, path in enumerate(tree.paths) if len(path) > tree.known[row]]
    groups: list[list[int]] = [[]]
    needed = 0
    longest = 0
    for row in sorted(rows, key=lambda row: (-tree.known[row], -len(tree.paths[row]))):
        length, known = len(tree.paths[row]), tree.known[row]
        scores, longest = (length - known) * length, max(longest, length)
        computed = (len(groups[-1]) + 1) * (longest - known) * longest
        if groups[-1] and computed > WASTE * (needed + scores) + SPARE:
            groups.append([])
            needed, longest = 0, length
        groups[-1].append(row)
        needed += scores
    return groups


def _block(tree: Tree, group: list[int]) -> Block:
    """Queries begin at the first place that any row of the group brings; what a row brings not is masked out of it."""
    first = min(tree.known[row] for row in group)
    width = max(len(tree.paths[row]) for row in group)
    gather_RL = np.empty((len(group), width), np.int64)
    for place, row in enumerate(group):
        path = tree.paths[row]
        gather_RL[place, : len(path)] = path
        gather_RL[place, len(path) :] = path[0]
    at_L, lengths = np.arange(width), np.array([len(tree.paths[row]) for row in group])[:, None]
    real_RL = at_L < lengths
    own_RL = real_RL & (at_L >= np.array([tree.known[row] for row in group])[:, None])
    return Block(
        rows=len(group),
        width=width - first,
        queries=_places(gather_RL[:, first:], own_RL[:, first:], once=True),
        keys=_places(gather_RL, real_RL, once=bool(first == 0 and (real_RL == own_RL).all())),
    )


def _places(gather_RL: np.ndarray, counts_RL: np.ndarray, *, once: bool) -> Places:
    return Places(
        torch.from_numpy(gather_RL.reshape(-1)),
        torch.from_numpy(gather_RL[counts_RL]),
        torch.from_numpy(np.flatnonzero(counts_RL)),
        once,
    )
