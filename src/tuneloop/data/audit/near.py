"""Near-duplicates in a sample, found without the method of the step `near_duplicates`, so that it can check the step.

An exact set-similarity join by prefix filtering (Chaudhuri et al. 2006; Xiao et al. 2008, "PPJoin"): two texts whose
shingles have a Jaccard similarity of at least t share one of each other's first (1 - t)·size + 1 shingles, when
shingles are ordered from the rarest on. A shingle is 5 characters, 3 where the first is Chinese, Japanese or Korean.
Shingles of a template, which many texts share, do not count.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tuneloop.texts.words import normalise

SIMILAR = 0.8
LONG, SHORT = 5, 3  # characters of a shingle
DENSE = 0x2E80  # Chinese, Japanese and Korean characters stand from here on
ENDS = 1000  # characters at either end of a long text that are compared
LEAST = 8  # shingles: with fewer beside a template, only equality is judged
SHARED = 0.01  # of the texts: what more have in common is a template
SHARED_LEAST = 20
MOST_PAIRS = 4_000_000  # looked at; only families of thousands of texts, or texts of few letters, have more

MOST_CHARACTERS = 8_000_000  # with more, only a part of the shingles is compared, and similarities are estimates
BLOCK = 1_000_000  # characters hashed at a time, so that memory stays small

Numbers = NDArray[np.int64]
Keys = NDArray[np.uint64]
_TEXT_BITS = 20
_TEXT = np.uint64(2**_TEXT_BITS - 1)


@dataclass(frozen=True)
class Near:
    """`same` numbers texts by equality after normalisation; `pairs` are numbers of `same` that are similar."""

    same: Numbers
    pairs: Numbers
    similarity: NDArray[np.float64]

    def clusters(self) -> Numbers:
        """A number for each text; texts that are equal, similar, or so linked, have the same."""
        parent = np.arange(len(self.same), dtype=np.int64)

        def root(node: int) -> int:
            while parent[node] != node:
                parent[node] = parent[parent[node]]
                node = int(parent[node])
            return node

        for one, other in self.pairs.tolist():
            first, second = root(one), root(other)
            parent[max(first, second)] = min(first, second)
        return np.fromiter((root(int(node)) for node in self.same), dtype=np.int64, count=len(self.same))

    def neighbours(self) -> dict[int, list[tuple[int, float]]]:
        """Number of `same`: the similar ones with their similarity."""
        found: dict[int, list[tuple[int, float]]] = defaultdict(list)
        for (one, other), value in zip(self.pairs.tolist(), self.similarity.tolist(), strict=True):
            found[one].append((other, value))
            found[other].append((one, value))
        return found


def near(texts: Sequence[str]) -> Near:
    """Equal and similar texts."""
    numbers: dict[str, int] = {}
    same = np.fromiter(
        (numbers.setdefault("".join(normalise(text).split()), len(numbers)) for text in texts),
        dtype=np.int64, count=len(texts),
    )  # fmt: skip
    return Near(same, *_join(list(numbers)))


def _join(texts: Sequence[str]) -> tuple[Numbers, NDArray[np.float64]]:
    """(pairs, similarities) of different texts with a Jaccard similarity of at least SIMILAR."""
    token, doc, frequency = _shingles(texts)
    stop = frequency > max(SHARED_LEAST, SHARED * len(texts))
    kept = ~stop[token]
    token, doc = token[kept], doc[kept]
    size = np.bincount(doc, minlength=len(texts))
    rank = np.argsort(np.argsort(frequency, kind="stable"), kind="stable")  # rare first; ties by hash
    ordered = np.sort(doc.astype(np.uint64) << np.uint64(32) | rank[token].astype(np.uint64))
    doc, token = (ordered >> np.uint64(32)).astype(np.int64), (ordered & np.uint64(2**32 - 1)).astype(np.int64)
    start = np.concatenate([[0], np.cumsum(size)])
    position = np.arange(len(doc)) - start[doc]
    prefix = size - np.ceil(SIMILAR * size - 1e-9).astype(np.int64) + 1
    looked = (position < prefix[doc]) & (size[doc] >= LEAST) & (np.sort(frequency)[token] > 1)
    one, other = _pairs(token[looked], doc[looked], size)
    common = _common(one, other, token, start)
    similarity = common / (size[one] + size[other] - common)
    found = similarity >= SIMILAR
    return np.stack([one[found], other[found]], axis=1), similarity[found]


def _common(one: Numbers, other: Numbers, token: Numbers, start: Numbers) -> Numbers:
    """How many tokens two texts have in common, for pairs that are sorted by the first."""
    common = np.zeros(len(one), dtype=np.int64)
    marked = np.zeros(int(token.max(initial=-1)) + 1, dtype=bool)
    borders = [*np.flatnonzero(np.append(True, one[1:] != one[:-1])[: len(one)]).tolist(), len(one)]
    for begin, end in pairwise(borders):
        own = token[start[one[begin]] : start[one[begin] + 1]]
        theirs = [token[start[text] : start[text + 1]] for text in other[begin:end].tolist()]
        marked[own] = True
        offsets = np.concatenate([[0], np.cumsum([len(tokens) for tokens in theirs])[:-1]])
        common[begin:end] = np.add.reduceat(marked[np.concatenate(theirs)], offsets, dtype=np.int64)
        marked[own] = False
    return common


def _shingles(texts: Sequence[str]) -> tuple[Numbers, Numbers, Numbers]:
    """(token, text) of every distinct shingle of every text, and how many texts have each token."""
    assert len(texts) < 2**_TEXT_BITS
    cut = [text if len(text) <= 2 * ENDS else text[:ENDS] + text[-ENDS:] for text in texts]
    every = np.uint64(1 + sum(map(len, cut)) // MOST_CHARACTERS)
    blocks: list[Keys] = [np.zeros(0, dtype=np.uint64)]
    begin, size = 0, 0
    for end, text in enumerate(cut, 1):
        size += len(text)
        if size >= BLOCK or end == len(cut):
            blocks.append(_keys(cut[begin:end], begin, every))
            begin, size = end, 0
    keys = np.sort(np.concatenate(blocks))
    hashes = keys >> np.uint64(_TEXT_BITS)
    first = np.flatnonzero(np.append(True, hashes[1:] != hashes[:-1])[: len(keys)])
    frequency = np.diff(np.append(first, len(keys)))
    token = np.repeat(np.arange(len(first)), frequency)
    return token, (keys & _TEXT).astype(np.int64), frequency


def _keys(texts: Sequence[str], begin: int, every: np.uint64) -> Keys:
    """44 bits of a shingle's hash above 20 bits of its text's number, so that one sort brings equal shingles together.

    Each shingle of a text comes once; of `every` shingles one is kept, the same ones in all texts.
    """
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    text = np.repeat(np.arange(begin, begin + len(texts), dtype=np.uint64), [len(text) for text in texts])
    count = max(0, len(codes) - SHORT + 1)
    codes = np.append(codes, np.zeros(LONG - SHORT, dtype=np.uint64))
    mixed = np.zeros(count, dtype=np.uint64)
    long = codes[:count] < DENSE
    for offset in range(LONG):
        following = mixed * np.uint64(0x9E3779B97F4A7C15) + codes[offset : offset + count]
        mixed = following if offset < SHORT else np.where(long, following, mixed)
    mixed = (mixed ^ (mixed >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(29)
    beyond = np.append(text, np.full(LONG - SHORT, 2**_TEXT_BITS, dtype=np.uint64))
    inside = text[:count] == np.where(long, beyond[LONG - 1 :][:count], beyond[SHORT - 1 :][:count])
    kept = inside & ((mixed >> np.uint64(_TEXT_BITS)) % every == 0)
    return np.unique((mixed[kept] & ~_TEXT) | text[:count][kept])


def _pairs(token: Numbers, doc: Numbers, size: Numbers) -> tuple[Numbers, Numbers]:
    """Texts that share a token, where their sizes alone do not rule the similarity out; sorted, each pair once.

    Behind each token the texts that are closest in size come first: a family of thousands of nearly equal texts has
    more than MOST_PAIRS, and is linked to one all the same.
    """
    order = np.lexsort((size[doc], token))
    token, doc = token[order], doc[order]
    found: list[Numbers] = [np.zeros(0, dtype=np.int64)]
    distance, left = 1, MOST_PAIRS
    while left > 0:
        near, far = doc[:-distance], doc[distance:]
        together = token[:-distance] == token[distance:]
        if not together.any():
            break
        together &= size[near] >= SIMILAR * size[far]  # sorted: the far one is never smaller
        low, high = np.minimum(near, far)[together], np.maximum(near, far)[together]
        found.append(np.unique(low << _TEXT_BITS | high))
        left -= len(found[-1])
        distance += 1
    pairs = np.unique(np.concatenate(found))
    return pairs >> _TEXT_BITS, pairs & (2**_TEXT_BITS - 1)
