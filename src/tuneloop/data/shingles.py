"""Texts as sets of shingles, short overlapping runs of characters, for many texts at once; how alike two sets are.

A shingle has 5 characters, and 3 where it begins with a Chinese, Japanese or Korean one, which says as much as a short
word: so an edit weighs alike in all languages. Knows nothing of Examples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

DENSE = 0x2E80
"""From this code point on stand the scripts (Han, kana, Hangul) of which 3 characters make a shingle."""
LONG, SHORT = 5, 3
_PAD = "\U0010ffff" * (LONG - 1)
_BLOCK = 1 << 17
"""Characters hashed at once: the intermediate arrays stay in the processor's cache, and memory is bounded."""
_BASE = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def hashed(texts: Sequence[str]) -> Iterator[tuple[Hashes, NDArray[np.int64]]]:
    """The 64-bit hashes of all shingles, with the index of the text of each, block by block in the order of the texts.

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
    codes = np.frombuffer("".join([part + _PAD for part in parts]).encode("utf-32-le", "surrogatepass"), "<u4")
    padded = np.array([len(part) for part in parts]) + len(_PAD)
    ends = np.cumsum(padded)
    starts = ends - padded
    left = np.repeat(ends - len(_PAD), padded) - np.arange(len(codes))  # characters from here to the text's end
    dense = codes >= DENSE
    whole = left >= np.where(dense, SHORT, LONG)
    whole[starts[~np.logical_or.reduceat(whole, starts)]] = True  # too short for any: the text itself, padded
    at = np.flatnonzero(whole[: -len(_PAD)])

    wide = codes.astype(np.uint64) + np.uint64(1)  # so that NUL at the beginning counts
    short = (wide[:-4] * _BASE + wide[1:-3]) * _BASE + wide[2:-2]
    long = (short * _BASE + wide[3:-1]) * _BASE + wide[4:]
    mixed = np.where(dense[:-4], short, long)[at]
    for shift, factor in zip((30, 27), _MIX, strict=True):  # splitmix64: every bit depends on every character
        mixed ^= mixed >> np.uint64(shift)
        mixed *= factor
    mixed ^= mixed >> np.uint64(31)
    return mixed, np.repeat(np.array(rows), padded)[at]


def sets(texts: Sequence[str]) -> list[Hashes]:
    """For each text the sorted hashes of its different shingles."""
    blocks = list(hashed(texts))
    if not blocks:
        return [np.empty(0, np.uint64) for _ in texts]
    hashes = np.concatenate([block for block, _ in blocks])
    rows = np.concatenate([row for _, row in blocks])
    borders = np.searchsorted(rows, np.arange(len(texts) + 1)).tolist()
    return [_distinct(hashes[start:end]) for start, end in pairwise(borders)]


def _distinct(hashes: Hashes) -> Hashes:
    hashes = np.sort(hashes)  # np.unique does the same at several times the cost for a few hundred values
    keep = np.empty(len(hashes), bool)
    keep[:1] = True
    np.not_equal(hashes[1:], hashes[:-1], out=keep[1:])
    return hashes[keep]


def jaccard(first: Hashes, second: Hashes) -> float:
    """Shared shingles as a share of all shingles of two sets; 0 where either is empty (nothing said is not alike)."""
    if not len(first) or not len(second):
        return 0.0
    both = np.sort(np.concatenate((first, second)))
    shared = int(np.count_nonzero(both[1:] == both[:-1]))
    return shared / (len(both) - shared)


def common(collection: Sequence[Hashes], share: float, least: int) -> Hashes:
    """The shingles that stand in more than `share` of the sets, and in `least` of them: what a template repeats."""
    if not collection:
        return np.empty(0, np.uint64)
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
