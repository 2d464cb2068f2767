"""Where the rows of a packed batch lie, in the forms that the ways to compute attention take: padded blocks
[R, Q] × [R, L], borders in one sequence, who sees whom.

Shapes as in attention.py: T tokens, R rows of a block with Q queries and L keys at most, N tokens of all rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tuneloop.forward.tree import Tree

WASTE = 1.5
"""Scores computed ÷ scores needed that a block may have before its rows are split into further blocks."""
SPARE = 8192
"""Scores that may be computed in vain in any case: a further block costs more."""


@dataclass(frozen=True)
class Places:
    """Which of the T tokens stand where in a padded block [R, Q] or [R, L], or in rows end to end; flat."""

    gather: Tensor
    """The token at each of the block's places; at padding, any."""
    tokens: Tensor
    """The tokens that count in this block, and where each stands in it."""
    places: Tensor
    once: bool
    """No token counts twice."""


class ToBlock(torch.autograd.Function):
    """Tokens [T, H, D] → block [X, H, D]. Where tokens occur once, the backward is a plain selection too."""

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


class FromBlock(torch.autograd.Function):
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


@dataclass(frozen=True)
class Block:
    """Rows of similar shape. The last query and the last key of a row are the same token."""

    rows: int
    width: int
    """Q."""
    queries: Places
    keys: Places


@dataclass(frozen=True)
class Rows:
    """Where rows lie among T tokens, for C."""

    paths_N: Tensor
    start: Tensor
    """[R + 1]: where each row begins in `paths_N`, and its end."""
    known_R: Tensor
    """Tokens at the beginning of each row whose queries belong to another row."""
    order_R: Tensor
    """Rows with the most work first."""
    in_order: bool
    """The rows' tokens, one after the other, are all T tokens."""

    @classmethod
    def of(cls, paths_N: Tensor, lengths: Sequence[int], known: Sequence[int], tokens: int) -> Rows:
        """Of rows with so many tokens each."""
        sizes, known_R = torch.tensor(lengths), torch.tensor(known)
        start = F.pad(sizes.cumsum(0), (1, 0))
        work = (sizes - known_R) * sizes
        in_order = torch.equal(paths_N, torch.arange(tokens))
        return cls(paths_N.contiguous(), start, known_R, work.argsort(descending=True), in_order)


@dataclass(frozen=True)
class Borders:
    """Rows as kernels for many sequences take them: queries are the T tokens, keys those of the rows that have queries,
    end to end in the order of their queries. The last query and the last key of a row are the same token."""

    queries: Tensor
    """[R + 1]: where the queries of each row begin, and their end; int32, as `keys`."""
    keys: Tensor
    most_queries: int
    most_keys: int
    gathered: Places | None
    """Which tokens the keys are; None: the T tokens, in order."""


@dataclass(frozen=True)
class Layout:
    """Where the rows of a packed batch lie. Each form of it is made when it is first asked for."""

    tree: Tree
    device: torch.device
    masks: dict[int | None, Any] = field(default_factory=dict, repr=False)
    """FlexAttention's (ragged.py), by window."""

    @classmethod
    def of(cls, tree: Tree) -> Layout:
        """On CPU."""
        return cls(tree, torch.device("cpu"))

    def to(self, device: torch.device) -> Layout:
        """The same layout with its indices on a device."""
        return Layout(self.tree, device)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each row."""
        return tuple(map(len, self.tree.paths))

    @cached_property
    def paths_N(self) -> Tensor:
        """The tokens of all rows, row by row; those that rows share occur several times."""
        return self._tensor(np.concatenate(self.tree.paths))

    @cached_property
    def for_kernels(self) -> Rows:
        """The same for what is compiled for the CPU."""
        return Rows.of(self.paths_N, self.lengths, self.tree.known, self.tree.tokens)

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """Of similar shape; one where the padding is small anyway. They cover the queries of all tokens once."""
        return tuple(self._block(group) for group in _groups(self.tree))

    @cached_property
    def order_T(self) -> Tensor:
        """Position of each token in the blocks' outputs laid end to end."""
        return torch.cat([block.queries.tokens for block in self.blocks]).argsort()

    @cached_property
    def borders(self) -> Borders:
        """The same for kernels that take many sequences at once."""
        tree = self.tree
        own = [len(path) - known for path, known in zip(tree.paths, tree.known, strict=True)]
        rows = sorted((row for row, count in enumerate(own) if count), key=lambda row: tree.paths[row][-1])
        paths = [tree.paths[row] for row in rows]
        keys_N = np.concatenate(paths)
        in_order = np.array_equal(keys_N, np.arange(tree.tokens))
        lengths = [len(path) for path in paths]
        queries, keys = ([*accumulate(sizes, initial=0)] for sizes in ([own[row] for row in rows], lengths))
        return Borders(
            self._tensor(np.array(queries, np.int32)),
            self._tensor(np.array(keys, np.int32)),
            max(own),
            max(lengths),
            None if in_order else self._places(keys_N, np.ones(len(keys_N), np.bool_), once=False),
        )

    @cached_property
    def sight(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each token [T] the end of the tokens that see it, and its place in its row."""
        end_T = np.zeros(self.tree.tokens, np.int32)
        for path in self.tree.paths:
            end_T[path] = np.maximum(end_T[path], path[-1] + 1)
        return end_T, self.tree.laid_out([np.arange(length, dtype=np.int32) for length in self.lengths])

    @property
    def shared(self) -> bool:
        """Whether some token belongs to several rows."""
        return sum(self.lengths) > self.tree.tokens

    def rows_N(self) -> Tensor:
        """The row of each entry of `paths_N`."""
        return self._tensor(np.repeat(np.arange(len(self.lengths)), self.lengths))

    def rows_T(self) -> Tensor:
        """The row of each token; of those that several rows share, the first of these."""
        found = self.paths_N.new_full((self.tree.tokens,), len(self.lengths))
        return found.scatter_reduce_(0, self.paths_N, self.rows_N(), "amin")

    def copies_T(self) -> Tensor:
        """How many rows each token belongs to."""
        return self.paths_N.bincount(minlength=self.tree.tokens)

    def _block(self, group: list[int]) -> Block:
        """Queries begin at the first place that any row of the group brings; what a row brings not is masked out."""
        tree = self.tree
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
            queries=self._places(gather_RL[:, first:], own_RL[:, first:], once=True),
            keys=self._places(gather_RL, real_RL, once=bool(first == 0 and (real_RL == own_RL).all())),
        )

    def _places(self, gather_RL: np.ndarray, counts_RL: np.ndarray, *, once: bool) -> Places:
        gather, tokens, places = gather_RL.reshape(-1), gather_RL[counts_RL], np.flatnonzero(counts_RL)
        return Places(self._tensor(gather), self._tensor(tokens), self._tensor(places), once)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)


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
