"""Which rows of a group contradict one another, over the stances of all rows at once. Knows nothing of texts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuneloop.data.stance import KINDS, Stance

Rows = NDArray[np.int64]
Values = NDArray[np.uint64]
_FIELD = {name: index for index, name in enumerate(Stance._fields)}


@dataclass(frozen=True)
class Disputes:
    """One entry a row: the kind of its first dispute, as an index of KINDS, or -1; a row that it contradicts there (of
    the largest camp that is not its own); and whether it is of the majority in all its disputes."""

    kind: NDArray[np.int64]
    other: Rows
    majority: NDArray[np.bool_]

    @property
    def rows(self) -> Rows:
        return np.flatnonzero(self.kind >= 0)


def disputes(groups: Rows, stances: Values) -> Disputes:
    """The disputes within groups of rows that answer the same question; groups below 0 are left alone."""
    count = len(groups)
    found = Disputes(np.full(count, -1), np.full(count, -1), np.ones(count, bool))
    for kind, within, values in _questions(groups, stances):
        rows, other, winning = _camps(within, values)
        found.majority[rows] &= winning
        new = found.kind[rows] < 0
        found.kind[rows[new]] = KINDS.index(kind)
        found.other[rows[new]] = other[new]
    return found


def _questions(groups: Rows, stances: Values) -> Iterator[tuple[str, Values, Values]]:
    """(kind, what must be equal for values to be comparable, the values; 0 for none), as in `stance.dispute`."""
    within = groups.astype(np.uint64)
    for kind in KINDS:
        yield kind, within, np.where(groups >= 0, stances[:, _FIELD[kind]], 0)
    wording = stances[:, _FIELD["wording"]]
    phrased = (within + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) ^ wording
    for kind, field in (("number", "numbers"), ("polarity", "negations")):
        yield kind, phrased, np.where((groups >= 0) & (wording > 0), stances[:, _FIELD[field]], 0)


def _camps(within: Values, values: Values) -> tuple[Rows, Rows, NDArray[np.bool_]]:
    """The rows whose group holds several values; for each a row of another camp, and whether its camp is the majority.

    A camp are the rows of a group with one value; the majority is a camp of more than half of the group.
    """
    rows = np.flatnonzero(values)
    rows = rows[np.lexsort((rows, values[rows], within[rows]))]
    group, value = within[rows], values[rows]
    new_group = np.ones(len(rows), bool)
    new_group[1:] = group[1:] != group[:-1]
    new_camp = new_group.copy()
    new_camp[1:] |= value[1:] != value[:-1]
    camp_of, starts = np.cumsum(new_camp) - 1, np.flatnonzero(new_camp)
    size, first, group_of = np.bincount(camp_of), rows[starts], (np.cumsum(new_group) - 1)[starts]
    # within each group the largest camp first, of equal ones the earliest
    ranked = np.lexsort((first, -size, group_of))
    begins = np.flatnonzero(np.diff(group_of[ranked], prepend=-1))
    total, camps = np.bincount(group_of, weights=size), np.bincount(group_of)
    lead = ranked[begins]
    second = ranked[np.minimum(begins + 1, max(len(ranked) - 1, 0))]  # of another group where there is one camp only
    leading = lead[group_of] == np.arange(len(starts))
    other = first[np.where(leading, second[group_of], lead[group_of])]
    winning = size * 2 > total[group_of]
    disputed = camps[group_of[camp_of]] > 1
    camp_of = camp_of[disputed]
    return rows[disputed], other[camp_of], winning[camp_of]
