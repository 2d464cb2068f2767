"""Which rows go together: optimizer steps by seeded shuffling, and within a step micro-batches by token budget.

Everything follows from (lengths, seed, epoch), so a resumed run finds its place without replaying anything.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

TOKEN_BUDGET = {"cpu": 2048, "cuda": 16384}


def token_budget(device: str) -> int:
    """Tokens of one forward pass by default: what a CPU's caches or a small GPU's memory carry well."""
    return TOKEN_BUDGET.get(device.partition(":")[0], TOKEN_BUDGET["cuda"])


def epoch_steps(count: int, batch_size: int, seed: int, epoch: int, shuffle: bool = True) -> list[list[int]]:
    """Row numbers of each optimizer step of an epoch. The last step may be smaller; no row is left out."""
    order = np.random.default_rng([seed, epoch]).permutation(count).tolist() if shuffle else list(range(count))
    return [order[start : start + batch_size] for start in range(0, count, batch_size)]


def micro_batches(lengths: Sequence[int], rows: Sequence[int], budget: int, *, packed: bool) -> list[list[int]]:
    """Splits rows into batches of at most `budget` tokens (padding counts where rows are padded), longest first.

    Longest first, so that a batch that does not fit in memory fails at once and not after an hour. A row longer than
    the budget stands alone.
    """
    batches: list[list[int]] = []
    tokens = 0
    for row in sorted(rows, key=lambda row: (-lengths[row], row)):
        cost = lengths[row] if packed or not batches else lengths[batches[-1][0]]
        if not batches or tokens + cost > budget:
            batches.append([])
            tokens, cost = 0, lengths[row]
        batches[-1].append(row)
        tokens += cost
    return batches


def share_of_rank(lengths: Sequence[int], rows: Sequence[int], rank: int, world: int) -> list[int]:
    """This rank's rows of a step, dealt longest first to the rank with the fewest tokens, alike on every rank."""
    loads = [0] * world
    mine: list[int] = []
    for row in sorted(rows, key=lambda row: (-lengths[row], row)):
        lightest = loads.index(min(loads))
        loads[lightest] += lengths[row]
        if lightest == rank:
            mine.append(row)
    return mine
