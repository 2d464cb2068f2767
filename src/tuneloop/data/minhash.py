"""MinHash: which of many texts are probably alike, from 128 bytes a text and without comparing all with all.

One-permutation hashing (Li, Owen, Zhang 2012) with optimal densification (Shrivastava 2017); of each of the 128 minima
one byte is kept (b-bit minwise hashing, Li and König 2010), and four neighbouring bytes are the key of a band. Each
function works on a shard, or on one band of all shards, by itself, and gives the same on every machine.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from tuneloop.data import shingles
from tuneloop.data.compiled import Twofold, address

Signatures = NDArray[np.uint8]
Pairs = NDArray[np.int64]

HASHES = 128
BANDS = 32
"""Of 4 hashes each: a pair of Jaccard similarity s shares a band with probability 1 - (1 - s^4)^32, which is 0.9998 for
0.7, 0.988 for 0.6 and 0.87 for 0.5. (16 bands of 8 find 0.61 of the pairs at 0.7.)"""
ALL_PAIRS = 16
"""Up to so many rows in a bucket all are paired; in larger ones each with the first and with the one before it."""
_BIN = np.uint32(32 - 7)
"""A shift by so many bits leaves the bin of a hash, one of 128."""
_ROWS = 2048
_DENSE = 48
"""Bins of a text that have something of their own, from which on the others find something with few questions."""
_EMPTY = np.uint32(2**32 - 1)


def signatures(texts: Sequence[str]) -> Signatures:
    """(texts, 128): bytes of which two texts share a fraction s + (1 - s) / 256 on average, s their similarity.

    Texts without any character get zeros, which mean nothing.
    """
    parts = [_signatures(texts[start : start + _ROWS]) for start in range(0, len(texts), _ROWS)]
    return np.concatenate(parts) if parts else np.empty((0, HASHES), np.uint8)


def _by_arrays(texts: Sequence[str]) -> Signatures:
    minima = np.full(len(texts) * HASHES, _EMPTY)
    for hashes, rows in shingles.hashed(texts):
        np.minimum.at(minima, rows * HASHES + (hashes >> _BIN), hashes)
    minima = minima.reshape(-1, HASHES)
    out, taken = minima.astype(np.uint8), minima != _EMPTY
    count = np.count_nonzero(taken, axis=1)
    out[count == 0] = 0
    # A bin that no shingle fell into borrows, by a fixed order, from one that has some.
    sparse = np.flatnonzero((count > 0) & (count < _DENSE))
    _ask(out.reshape(-1), taken.reshape(-1), np.flatnonzero(~taken & (count >= _DENSE)[:, None]))
    if len(sparse):
        out[sparse] = _offered(out[sparse], taken[sparse], count[sparse])
    return out


def _compiled(library: ctypes.CDLL, texts: list[str]) -> Signatures:
    out, lenders = np.empty((len(texts), HASHES), np.uint8), _lenders().astype(np.uint8)
    library.signatures(texts, address(lenders), address(out))
    return out


_signatures = Twofold(_by_arrays, _compiled)


def _ask(lent: Signatures, taken: NDArray[np.bool_], empty: NDArray[np.int64]) -> None:
    """Fills the empty bins, each asking one after the other: fast where most have something to lend.

    Bins of all texts are numbered through: flat indices are several times as fast as pairs.
    """
    first, column = empty & ~(HASHES - 1), empty & (HASHES - 1)
    for lenders in _lenders():
        if not len(empty):
            break
        source = first + lenders[column]
        found = taken[source]
        lent[empty[found]] = lent[source[found]]
        rest = ~found
        empty, first, column = empty[rest], first[rest], column[rest]


def _offered(minima: Signatures, taken: NDArray[np.bool_], count: NDArray[np.int64]) -> Signatures:
    """The same for texts in which few bins have something, which they offer to all others one after the other."""
    order = np.argsort(-count, kind="stable")
    lenders, turn = np.nonzero(taken[order])[1], np.cumsum(count[order]) - count[order]
    best = np.full(minima.shape, 0xFFFF, np.uint16)
    for number in range(int(count.max())):
        rows = np.count_nonzero(count > number)  # the first of the order
        lender = lenders[turn[:rows] + number]
        offer = _ranks()[lender]
        offer |= minima[order[:rows], lender][:, None]
        np.minimum(best[:rows], offer, out=best[:rows])
    out = np.empty_like(minima)
    out[order] = best.astype(np.uint8)
    return out


@cache
def _lenders() -> NDArray[np.int64]:
    """(128, 128): [attempt, bin]; the bins that each bin asks, in an order of its own."""
    state = np.arange(1, HASHES * HASHES + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    return np.argsort((state ^ (state >> np.uint64(27))).reshape(HASHES, HASHES), axis=1, kind="stable").T.copy()


@cache
def _ranks() -> NDArray[np.uint16]:
    """(128, 128): [lender, bin]; 256 times the attempt at which a bin asks a lender, 0 where it is itself."""
    ranks = np.argsort(_lenders(), axis=0, kind="stable").astype(np.uint16) + np.uint16(1)
    np.fill_diagonal(ranks, 0)
    return ranks << np.uint16(8)


def band_keys(signatures: Signatures) -> NDArray[np.uint32]:
    """(texts, 32): texts with the same key in a band are candidates."""
    return np.ascontiguousarray(signatures).view("<u4")


def candidate_pairs(keys: NDArray[np.uint32]) -> Pairs:
    """(pairs, 2): rows, the smaller first, with the same key in one band. Linear in the rows, however large a bucket.

    In a large bucket (a template, or thousands of copies) two alike rows may not be paired; they share other bands.
    """
    ordered = np.sort(keys.astype(np.uint64) << np.uint64(32) | np.arange(len(keys), dtype=np.uint64))
    value, row = ordered >> np.uint64(32), (ordered & np.uint64(0xFFFFFFFF)).astype(np.int64)
    starts = np.flatnonzero(np.concatenate(([True], value[1:] != value[:-1]))) if len(keys) else np.empty(0, np.int64)
    sizes = np.diff(np.append(starts, len(keys)))
    first, size = np.repeat(starts, sizes), np.repeat(sizes, sizes)
    within = np.arange(len(keys)) - first
    large = np.flatnonzero((size > ALL_PAIRS) & (within > 0))
    chained = large[within[large] > 1]
    pairs = [(row[first[large]], row[large]), (row[chained - 1], row[chained])]
    small = np.flatnonzero((size <= ALL_PAIRS) & (within > 0))
    for distance in range(1, ALL_PAIRS):
        small = small[within[small] >= distance]
        pairs.append((row[small - distance], row[small]))
    return np.stack([np.concatenate(side) for side in zip(*pairs, strict=True)], axis=1)


def muted(ignored: shingles.Hashes) -> NDArray[np.bool_]:
    """(128, 256): the bytes that ignored shingles leave in each bin."""
    table = np.zeros((HASHES, 256), bool)
    table[ignored >> _BIN, ignored & 0xFF] = True
    return table


def may_reach(threshold: float, signatures: Signatures, pairs: Pairs, mute: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether the similarity of each pair, as its signatures estimate it, may be the threshold.

    Hashes that both have of muted shingles are not counted. The margin of 3.7 standard errors (0.15 where all 128
    hashes count) loses about one pair in ten thousand.
    """
    out = np.empty(len(pairs), bool)
    for start in range(0, len(pairs), 1 << 14):
        left, right = pairs[start : start + (1 << 14)].T
        same = signatures[left] == signatures[right]
        silent = same & mute[np.arange(HASHES), signatures[left]]
        counted = HASHES - np.count_nonzero(silent, axis=1)
        matches = np.count_nonzero(same, axis=1) - (HASHES - counted)
        estimate = (matches / np.maximum(counted, 1) - 1 / 256) / (1 - 1 / 256)
        margin = 3.7 * np.sqrt(threshold * (1 - threshold) / np.maximum(counted, 1)) + 1e-6
        out[start : start + (1 << 14)] = (counted == 0) | (estimate >= threshold - margin)
    return out
