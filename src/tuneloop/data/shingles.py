"""Texts as sets of shingles, short overlapping runs of characters, for many texts at once; how alike two sets are.

A shingle has 5 characters, and 3 where it begins with a Chinese, Japanese or Korean one, which says as much as a short
word: so an edit weighs alike in all languages. Knows nothing of Examples.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuneloop.data.compiled import Twofold, address

Hashes = NDArray[np.uint32]

DENSE = 0x2E80
"""From this code point on stand the scripts (Han, kana, Hangul) of which 3 characters make a shingle."""
LONG, SHORT = 5, 3
_PAD = "\U0010ffff" * (LONG - 1)
_BLOCK = 1 << 17
"""Characters hashed at once: the intermediate arrays stay in the processor's cache, and memory is bounded."""
_BASE = np.uint32(0x9E3779B1)
_MIX = ((16, 0x85EBCA6B), (13, 0xC2B2AE35))


def hashed(texts: Sequence[str]) -> Iterator[tuple[Hashes, NDArray[np.int64]]]:
    """The 32-bit hashes of all shingles, with the index of the text of each, block by block in the order of the texts.

    A shingle that occurs twice in a text comes twice. A text shorter than a shingle is one shingle; an empty one none.
    """
    parts: list[str] = []
    rows: list[int] = []
    size = 0
    for row, text in enumerate(texts):
        for part in _parts(text):
            parts.append(part)
            rows.append(row)
            size += len(part)
            if size >= _BLOCK:
                yield _block(parts, rows)
                parts, rows, size = [], [], 0
    if parts:
        yield _block(parts, rows)


def _parts(text: str) -> Iterator[str]:
    """A long text in pieces which overlap so that every shingle is whole in one (it may come twice)."""
    if len(text) <= _BLOCK:
        if text:
            yield text
        return
    for start in range(0, max(1, len(text) - LONG + 1), _BLOCK):
        yield text[start : start + _BLOCK + LONG - 1]


def _block(parts: Sequence[str], rows: Sequence[int]) -> tuple[Hashes, NDArray[np.int64]]:
    codes = np.frombuffer(_PAD.join([*parts, ""]).encode("utf-32-le", "surrogatepass"), "<u4")
    sizes = np.array(list(map(len, parts)))
    starts = np.cumsum(sizes + len(_PAD)) - sizes - len(_PAD)
    whole = _whole(codes, starts, sizes)
    counts = np.add.reduceat(whole.view(np.uint8), starts, dtype=np.uint32)

    # 32 bits are enough: of two texts of 400 characters one shingle in 50,000 pairs is taken for another one
    codes = codes + np.uint32(1)  # so that NUL at the beginning counts
    short = (codes[:-4] * _BASE + codes[1:-3]) * _BASE + codes[2:-2]
    mixed = (short * _BASE + codes[3:-1]) * _BASE + codes[4:]
    np.copyto(mixed, short, where=codes[:-4] > DENSE)
    mixed = mixed[whole[: -len(_PAD)]]
    for shift, factor in _MIX:  # MurmurHash3's end: every bit depends on every character
        mixed ^= mixed >> np.uint32(shift)
        mixed *= np.uint32(factor)
    mixed ^= mixed >> np.uint32(16)
    return mixed, np.repeat(np.array(rows), counts)


def _whole(codes: NDArray[np.uint32], starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where shingles begin that end within their text, which is followed by four codes that are none."""
    whole = np.ones(len(codes), bool)
    ends = starts + sizes
    for distance in range(-len(_PAD) + 1, LONG):  # from the text's end back
        at = ends[sizes >= distance] - distance
        whole[at] = (distance >= SHORT) & (codes[at] >= DENSE)
    tiny = starts[sizes < LONG]
    none = ~np.logical_or.reduce([whole[tiny + offset] for offset in range(LONG - 1)])
    whole[tiny[none]] = True  # too short for any: the text itself, padded
    return whole


def _by_arrays(texts: Sequence[str]) -> tuple[Hashes, NDArray[np.int64]]:
    """The hashes of all texts in one, and where each text's begin and the last's end [N + 1]."""
    blocks = list(hashed(texts))
    hashes = np.concatenate([np.empty(0, np.uint32), *(block for block, _ in blocks)])
    rows = np.concatenate([np.empty(0, np.int64), *(row for _, row in blocks)])
    return hashes, np.searchsorted(rows, np.arange(len(texts) + 1))


def _compiled(library: ctypes.CDLL, texts: list[str]) -> tuple[Hashes, NDArray[np.int64]]:
    hashes = np.empty(sum(map(len, texts)), np.uint32)
    borders = np.zeros(len(texts) + 1, np.int64)
    library.hashes(texts, address(hashes), address(borders[1:]))
    np.cumsum(borders, out=borders)
    return hashes[: borders[-1]], borders


_of_each = Twofold(_by_arrays, _compiled)


def sets(texts: Sequence[str]) -> list[Hashes]:
    """For each text the sorted hashes of its different shingles."""
    hashes, borders = _of_each(texts)
    if not len(hashes):
        return [hashes for _ in texts]
    for start, end in pairwise(borders.tolist()):
        hashes[start:end].sort()
    keep = np.ones(len(hashes), bool)
    np.not_equal(hashes[1:], hashes[:-1], out=keep[1:])
    keep[borders[borders < len(hashes)]] = True  # np.unique does the same at several times the cost
    distinct, counts = hashes[keep], np.concatenate(([0], np.cumsum(keep)))
    # copies, so that one text does not keep those of all others in memory
    return [distinct[start:end].copy() for start, end in pairwise(counts[borders].tolist())]


def jaccard(first: Hashes, second: Hashes) -> float:
    """Shared shingles as a share of all shingles of two sets; 0 where either is empty (nothing said is not alike)."""
    if not len(first) or not len(second):
        return 0.0
    both = np.concatenate((first, second))
    both.sort()
    shared = int(np.count_nonzero(both[1:] == both[:-1]))
    return shared / (len(both) - shared)


def shared(similarity: float, total: int) -> int:
    """How many shingles two sets have in common that have so many together, from their `jaccard`."""
    return round(similarity * total / (1 + similarity))


def least_likeness_of_ends(shared: int, texts: tuple[str, str], ends: tuple[str, str]) -> float:
    """What the `jaccard` of the ends of two texts is at least, if the texts have so many shingles in common; 0 where an
    end is none.

    A shingle that both texts and not both ends have begins before an end in one of the texts.
    """
    before = [text.removesuffix(end) for text, end in zip(texts, ends, strict=True)]
    # those of equal beginnings are the same, but for the last few, which lead into the ends
    outside = len(before[0]) + (0 if before[0] == before[1] else len(before[1])) + 2 * (LONG - 1)
    inside = shared - outside
    return inside / (len(ends[0]) + len(ends[1]) - inside) if inside > 0 else 0.0


def common(collection: Sequence[Hashes], share: float, least: int) -> Hashes:
    """The shingles that stand in more than `share` of the sets, and in `least` of them: what a template repeats."""
    if not collection:
        return np.empty(0, np.uint32)
    values, counts = np.unique(np.concatenate(collection), return_counts=True)
    return values[(counts > share * len(collection)) & (counts >= least)]


def without(shingles: Hashes, ignored: Hashes) -> Hashes:
    """The set less what is ignored; the set itself where nothing else would remain."""
    rest = shingles[~contains(ignored, shingles)]
    return rest if len(rest) else shingles


def contains(ordered: NDArray[Any], values: NDArray[Any]) -> NDArray[np.bool_]:
    """Which values stand in a sorted array. np.isin does the same at a multiple of the cost."""
    if not len(ordered):
        return np.zeros(len(values), bool)
    return ordered[np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)] == values
