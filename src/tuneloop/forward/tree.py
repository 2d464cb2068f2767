"""Rows that begin with the same tokens as a prefix tree: what is common to several is stored, and computed, once.

Causal layers give a token the same hidden state in every row whose tokens up to it are the same, so a batch needs each
branch of the tree once. Pure functions over arrays; no torch.
Shapes: R rows, T tokens of the tree, N tokens of all rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

FLOOR = 16
"""Common first tokens that are shared at least; for fewer, the bookkeeping costs more than the tokens."""
WORTH = 0.05
"""Share of a batch's tokens that a tree must save, else rows are simply laid end to end."""


@dataclass(frozen=True)
class Tree:
    """Where the tokens of each row stand among the tree's T tokens."""

    paths: tuple[np.ndarray, ...]
    """Of each row the places of its tokens, first to last."""
    known: tuple[int, ...]
    """How many of them another row has already brought: places below it belong to that row too."""

    @classmethod
    def flat(cls, lengths: Sequence[int]) -> Tree:
        """Rows end to end, in which nothing is shared."""
        ends = np.cumsum(lengths)
        return cls(
            tuple(np.arange(end - length, end) for end, length in zip(ends, lengths, strict=True)), (0,) * len(lengths)
        )

    @classmethod
    def of(cls, ids: Sequence[np.ndarray]) -> Tree:
        """The tree of rows of token ids; flat where sharing would save next to nothing."""
        order, common = in_order(ids, range(len(ids)))
        if sum(common) < WORTH * sum(map(len, ids)):
            return cls.flat([len(row) for row in ids])
        paths: list[np.ndarray] = [np.empty(0, np.int64)] * len(ids)
        known = [0] * len(ids)
        done, before = 0, np.empty(0, np.int64)
        for row, count in zip(order, common, strict=True):
            own = len(ids[row]) - count
            paths[row] = before = np.concatenate([before[:count], np.arange(done, done + own)])
            known[row] = count
            done += own
        return cls(tuple(paths), tuple(known))

    @property
    def tokens(self) -> int:
        """T."""
        return sum(len(path) - known for path, known in zip(self.paths, self.known, strict=True))

    def laid_out(self, ids: Sequence[np.ndarray]) -> np.ndarray:
        """The rows' values [N] at the places [T] of the tree."""
        out = np.empty(self.tokens, ids[0].dtype)
        for path, known, row in zip(self.paths, self.known, ids, strict=True):
            out[path[known:]] = row[known:]
        return out


def in_order(ids: Sequence[np.ndarray], rows: Sequence[int]) -> tuple[list[int], list[int]]:
    """The rows sorted by their tokens, and how many first tokens each has in common with the one before it.

    Counts below FLOOR are given as 0. In this order the tree of any stretch of rows is as small as it can be.
    """
    keys = {row: ids[row].astype(">u4").tobytes() for row in rows}
    order = sorted(rows, key=keys.__getitem__)
    common = [0] * len(order)
    for place in range(1, len(order)):
        shared = _common(ids[order[place - 1]], ids[order[place]])
        common[place] = shared if shared >= FLOOR else 0
    return order, common


def families(ids: Sequence[np.ndarray], limit: int) -> np.ndarray:
    """A number [R] for each row, the same for rows that stand in one branch of at most `limit` rows.

    Branches are taken as large as the limit allows: a stretch of sorted rows is divided where its rows have least in
    common, until it is small enough.
    """
    order, common = in_order(ids, range(len(ids)))
    found = np.empty(len(ids), np.int64)
    stretches, family = [(0, len(order))], 0
    while stretches:
        start, end = stretches.pop()
        inner = common[start + 1 : end]
        if inner and (len(inner) >= limit or min(inner) == 0):
            least = min(inner)
            cuts = [start, *(start + 1 + place for place, count in enumerate(inner) if count == least), end]
            stretches += list(pairwise(cuts))
            continue
        found[order[start:end]] = family
        family += 1
    return found


def _common(one: np.ndarray, other: np.ndarray) -> int:
    length = min(len(one), len(other))
    unlike = one[:length] != other[:length]
    first = int(unlike.argmax()) if length else 0
    return first if length and unlike[first] else length
