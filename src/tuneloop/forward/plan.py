"""Which rows go together: optimizer steps by seeded shuffling, and within a step micro-batches by token budget.

Everything follows from (lengths, seed, epoch), so a resumed run finds its place without replaying anything.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tuneloop.forward.tree import in_order

TOKEN_BUDGET = {"cpu": 2048, "cuda": 16384}


def token_budget(device: str) -> int:
    """Tokens of one forward pass by default: what a CPU's caches or a small GPU's memory carry well."""
    return TOKEN_BUDGET.get(device.partition(":")[0], TOKEN_BUDGET["cuda"])


def epoch_steps(
    count: int, batch_size: int, seed: int, epoch: int, shuffle: bool = True, families: np.ndarray | None = None
) -> list[list[int]]:
    """Row numbers of each optimizer step of an epoch. The last step may be smaller; no row is left out.

    Rows of one number in `families` [count] follow one another; the order of families and that within them is shuffled.
    """
    order = np.random.default_rng([seed, epoch]).permutation(count) if shuffle else np.arange(count)
    if families is not None:
        place = np.empty(count, np.int64)
        place[order] = np.arange(count)
        first = np.full(families.max(initial=-1) + 1, count)
        np.minimum.at(first, families, place)
        order = np.lexsort((place, first[families]))
    rows = order.tolist()
    return [rows[start : start + batch_size] for start in range(0, count, batch_size)]


def micro_batches(
    lengths: Sequence[int],
    rows: Sequence[int],
    budget: int,
    *,
    packed: bool,
    ids: Sequence[np.ndarray] | None = None,
) -> list[list[int]]:
    """Splits rows into batches of at most `budget` tokens (padding counts where rows are padded), longest first.

    Longest first, so that a batch that does not fit in memory fails at once and not after an hour. A row longer than
    the budget stands alone. With `ids`, rows that begin alike stay together and their first tokens count once.
    """
    units = _pieces(lengths, rows, budget, ids)
    batches: list[list[int]] = []
    tokens = 0
    for cost, unit in units:
        cost = cost if packed or not batches else lengths[batches[-1][0]]
        if not batches or tokens + cost > budget:
            batches.append([])
            tokens, cost = 0, cost if packed else lengths[unit[0]]
        batches[-1] += unit
        tokens += cost
    return batches


def share_of_rank(
    lengths: Sequence[int], rows: Sequence[int], rank: int, world: int, ids: Sequence[np.ndarray] | None = None
) -> list[int]:
    """This rank's rows of a step, dealt longest first to the rank with the fewest tokens, alike on every rank.

    With `ids`, rows that begin alike are dealt together, as far as that leaves no rank idle.
    """
    if world == 1:
        return list(rows)
    whole = sum(cost for cost, _ in _pieces(lengths, rows, sum(lengths[row] for row in rows), ids))
    loads = [0] * world
    mine: list[int] = []
    for cost, unit in _pieces(lengths, rows, -(-whole // world), ids):
        lightest = loads.index(min(loads))
        loads[lightest] += cost
        if lightest == rank:
            mine += unit
    return mine


def _pieces(
    lengths: Sequence[int], rows: Sequence[int], limit: int, ids: Sequence[np.ndarray] | None
) -> list[tuple[int, list[int]]]:
    """(cost, rows) of what is planned as one, the dearest first: rows that begin alike, up to `limit` tokens."""
    if ids is None:
        return sorted(((lengths[row], [row]) for row in rows), key=lambda unit: (-unit[0], unit[1]))
    pieces: list[tuple[int, list[int]]] = []
    for row, common in zip(*in_order(ids, rows), strict=True):
        cost, unit = pieces[-1] if pieces else (0, [])
        own = lengths[row] - common
        if unit and common and cost + own <= limit:
            pieces[-1] = (cost + own, [*unit, row])
        else:
            pieces.append((lengths[row], [row]))
    return sorted(pieces, key=lambda piece: (-piece[0], piece[1]))
