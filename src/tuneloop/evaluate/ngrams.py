"""N-grams that two texts share, for many pairs at once: numbers are sorted instead of dictionaries filled.

Legend: N pairs of texts, U units (words or characters) of a block of them, O orders of n-grams.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Counts = NDArray[np.int64]
    Units = NDArray[np.uint64]

BLOCK = 100_000  # units of a block: what is sorted stays in the cache
MOST_ROWS = 4_096  # of a block: a row's number takes the upper 12 bits of a key
_STEP = 0x9E3779B97F4A7C15  # of the rolling hash modulo 2^64; any odd number of mixed bits will do


class Shared(NamedTuple):
    """[N, O] counts: n-grams of the first text, of the second, and of both (as bags)."""

    found: Counts
    expected: Counts
    common: Counts


def words(texts: Sequence[Sequence[str]]) -> list[Units]:
    """Each text's words as numbers; equal words are equal numbers, within this process."""
    import numpy as np

    return [np.fromiter(map(hash, text), np.int64, len(text)).view(np.uint64) for text in texts]


def characters(texts: Sequence[str]) -> list[Units]:
    """Each text's characters as numbers with mixed bits."""
    import numpy as np

    found: list[Units] = []
    for text in texts:
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
        points = (points + np.uint64(1)) * np.uint64(0xBF58476D1CE4E5B9)
        points ^= points >> np.uint64(29)
        found.append(points * np.uint64(0x94D049BB133111EB))
    return found


def shared(found: Sequence[Units], expected: Sequence[Units], orders: Sequence[int]) -> Shared:
    """The n-grams of N pairs for each of the orders.

    N-grams are told apart by 51 bits of a hash within their pair: two of 1,000 are confused once in 10^9 pairs.
    """
    import numpy as np

    out = [np.zeros((len(found), len(orders)), np.int64) for _ in range(3)]
    for start, stop in _blocks(found, expected):
        rows = stop - start
        sides = [*found[start:stop], *expected[start:stop]]
        lengths = np.fromiter(map(len, sides), np.int64, len(sides))
        for place, order in enumerate(orders):
            counts = np.maximum(lengths - order + 1, 0)
            out[0][start:stop, place], out[1][start:stop, place] = counts[:rows], counts[rows:]
        for place, common in enumerate(_common(np.concatenate(sides), lengths, rows, orders)):
            out[2][start:stop, place] = common
    return Shared(*out)


def _blocks(found: Sequence[Units], expected: Sequence[Units]) -> Iterator[tuple[int, int]]:
    start = units = 0
    for place, (one, two) in enumerate(zip(found, expected, strict=True)):
        if place > start and (units + len(one) + len(two) > BLOCK or place - start == MOST_ROWS):
            yield start, place
            start, units = place, 0
        units += len(one) + len(two)
    if start < len(found):
        yield start, len(found)


def _common(units: Units, lengths: Counts, rows: int, orders: Sequence[int]) -> Iterator[Counts]:
    """For each order, how many n-grams each pair shares; `units` are those of the `rows` first and second texts."""
    import numpy as np

    texts = np.repeat(np.arange(2 * rows, dtype=np.uint64), lengths)
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(units))  # units from here to the end of the text
    high = (texts % np.uint64(rows)) << np.uint64(52)
    side = (texts >= rows).astype(np.uint64)
    rolled = units.copy()
    for order in range(1, max(orders) + 1):
        if order > 1:
            rolled = rolled[:-1] * np.uint64(_STEP) + units[order - 1 :]
        if order in orders:
            whole = np.flatnonzero(left[: len(rolled)] >= order)
            keys = high[whole] | ((rolled[whole] >> np.uint64(12)) & np.uint64(2**52 - 2)) | side[whole]
            yield _matches(keys, rows)


def _matches(keys: Units, rows: int) -> Counts:
    """Keys are row, hash and side: of each row, how many of the one side find an equal one on the other."""
    import numpy as np

    if not len(keys):
        return np.zeros(rows, np.int64)
    keys.sort()
    runs = np.flatnonzero(np.concatenate([[True], keys[1:] >> np.uint64(1) != keys[:-1] >> np.uint64(1)]))
    second = np.add.reduceat((keys & np.uint64(1)).astype(np.int64), runs)
    both = np.minimum(second, np.diff(runs, append=len(keys)) - second)
    return np.bincount((keys[runs] >> np.uint64(52)).astype(np.int64), both, rows).astype(np.int64)
