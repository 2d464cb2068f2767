"""Union-find: which rows hang together, given pairs of rows. A group is named by its smallest row."""

from __future__ import annotations

from array import array

import numpy as np
from numpy.typing import NDArray


class UnionFind:
    """Groups of rows 0 … count - 1; 8 bytes a row. The groups do not depend on the order of the pairs."""

    def __init__(self, count: int) -> None:
        self._parent = array("q", range(count))

    def find(self, row: int) -> int:
        """The smallest row of the row's group."""
        parent = self._parent
        while parent[row] != row:
            parent[row] = row = parent[parent[row]]
        return row

    def union(self, one: int, other: int) -> None:
        """Joins the groups of two rows."""
        one, other = self.find(one), self.find(other)
        self._parent[max(one, other)] = min(one, other)

    def join_to_first(self, pairs: NDArray[np.int64]) -> None:
        """`union` of each (first, other) at once, where nothing is joined yet, each other comes once, and its first is
        smaller and no other."""
        np.frombuffer(self._parent, np.int64)[pairs[:, 1]] = pairs[:, 0]

    def groups(self) -> NDArray[np.int64]:
        """For each row the smallest row of its group."""
        found = np.frombuffer(self._parent, np.int64) if len(self._parent) else np.empty(0, np.int64)
        while True:
            further = found[found]
            if np.array_equal(further, found):
                return further
            found = further
