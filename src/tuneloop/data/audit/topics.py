"""How many different things a set of instructions asks for, without k-means: the fewest prototypes that cover it.

Instructions are vectors of hashed, TF-IDF weighted words (Chinese: characters and pairs of them). A prototype covers
what lies within a cosine of ALIKE; prototypes are taken greedily, each time the one that covers most of what is left.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tuneloop.data.audit.units import words

ALIKE = 0.2
BUCKETS = 2**16


@dataclass(frozen=True)
class Topics:
    """`prototypes` are numbers of texts, `sizes` how many texts each one added, the largest first."""

    prototypes: list[int]
    sizes: list[int]

    @property
    def effective(self) -> float:
        """The exponential of the entropy of the sizes: so many equally large topics are as varied."""
        total = sum(self.sizes)
        return math.exp(-sum(size / total * math.log(size / total) for size in self.sizes)) if total else 0.0

    def needed(self, share: float) -> int:
        """Prototypes that cover a share of the texts."""
        covered, total = np.cumsum(self.sizes), sum(self.sizes)
        return int(np.searchsorted(covered, share * total - 1e-9)) + 1 if total else 0


def topics(texts: Sequence[str]) -> Topics:
    """Prototypes of the texts; memory and time grow with their square (2,000 texts: 4 MB, under a second)."""
    if not texts:
        return Topics([], [])
    near = _likenesses(texts) >= ALIKE
    np.fill_diagonal(near, True)  # a text without a word is its own topic
    left = np.ones(len(texts), dtype=bool)
    counts = near.sum(axis=1, dtype=np.int64)
    out = Topics([], [])
    while left.any():
        prototype = int(np.argmax(counts))
        covered = near[prototype] & left
        out.prototypes.append(prototype)
        out.sizes.append(int(covered.sum()))
        counts -= near[:, covered].sum(axis=1, dtype=np.int64)
        left &= ~covered
    return out


def _likenesses(texts: Sequence[str]) -> NDArray[np.float32]:
    """The cosine of each text with each other one; on the diagonal stands what a text shares with others.

    A product of sparse matrices, without a library for it: where scipy is installed, each start of transformers takes
    a quarter of a second longer, because its losses for pictures import it.
    """
    rows: list[int] = []
    columns: list[int] = []
    for row, text in enumerate(texts):
        features = {zlib.crc32(feature.encode("utf-8", "surrogatepass")) % BUCKETS for feature in _features(text)}
        rows += [row] * len(features)
        columns += sorted(features)
    found = np.bincount(np.array(columns, np.int64), minlength=BUCKETS)
    weights = np.log((1 + len(texts)) / (1 + found))[np.array(columns, np.int64)].astype(np.float32)
    texts_of = np.array(rows, np.int64)
    weights *= (1 / _lengths(texts_of, weights, len(texts)))[texts_of]
    by_feature = np.argsort(columns, kind="stable")
    ends = np.cumsum(found)
    likenesses = np.zeros((len(texts), len(texts)), np.float32)
    for feature in np.flatnonzero(found > 1).tolist():
        places = by_feature[ends[feature] - found[feature] : ends[feature]]
        _add_products(likenesses, texts_of[places], weights[places])
    return likenesses


def _lengths(rows: NDArray[np.int64], weights: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """The Euclidean length of each text's vector; 1 where it is empty."""
    squares = weights * weights
    there = squares > 0
    starts = np.flatnonzero(np.diff(rows[there], prepend=-1))
    lengths = np.ones(count, np.float32)
    if len(starts):
        lengths[rows[there][starts]] = np.sqrt(np.add.reduceat(squares[there], starts))
    return lengths


def _add_products(likenesses: NDArray[np.float32], rows: NDArray[np.int64], weights: NDArray[np.float32]) -> None:
    """Adds what one feature gives each pair of the texts that have it."""
    if 4 * len(rows) > len(likenesses):  # adding zeros to all is faster than choosing
        whole = np.zeros(len(likenesses), np.float32)
        whole[rows] = weights
        likenesses += np.outer(whole, whole)
    else:
        likenesses[np.ix_(rows, rows)] += np.outer(weights, weights)


def _features(text: str) -> set[str]:
    """Words, and for Chinese also pairs of characters; the first 200 words of a text say what it is about."""
    found = words(text)[:200]
    pairs = {a + b for a, b in pairwise(found) if len(a) == len(b) == 1 and not a.isascii()}
    return pairs | set(found)
