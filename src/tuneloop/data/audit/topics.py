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
from scipy.sparse import csr_matrix

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
    vectors = _vectors(texts)
    near = (vectors @ vectors.T).toarray() >= ALIKE
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


def _vectors(texts: Sequence[str]) -> csr_matrix:
    rows: list[int] = []
    columns: list[int] = []
    for row, text in enumerate(texts):
        features = {zlib.crc32(feature.encode("utf-8", "surrogatepass")) % BUCKETS for feature in _features(text)}
        rows += [row] * len(features)
        columns += sorted(features)
    found = np.bincount(columns, minlength=BUCKETS)
    weights = np.log((1 + len(texts)) / (1 + found))[columns]
    matrix = csr_matrix((weights, (rows, columns)), shape=(len(texts), BUCKETS), dtype=np.float32)
    lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    scale = 1 / np.where(lengths > 0, lengths, 1)
    return csr_matrix(matrix.multiply(scale[:, None]))


def _features(text: str) -> set[str]:
    """Words, and for Chinese also pairs of characters; the first 200 words of a text say what it is about."""
    found = words(text)[:200]
    pairs = {a + b for a, b in pairwise(found) if len(a) == len(b) == 1 and not a.isascii()}
    return pairs | set(found)
