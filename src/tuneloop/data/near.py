"""Near-same texts among the rows of a set step: keys of a shard, candidates over all shards, verified similarities.

Memory is bounded by the keys and by budgets stated here, not by how alike the rows are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tuneloop.core.conversation import Example
from tuneloop.data import minhash, shingles
from tuneloop.data.minhash import Pairs
from tuneloop.data.steps import Rows
from tuneloop.data.union_find import UnionFind

if TYPE_CHECKING:
    from tuneloop.data.steps import Keys

UNSURE = 32
"""Texts of fewer characters are always verified: their few shingles make estimates too rough."""
_CHARACTERS = 2_000_000
"""Of texts that are read and compared at once; the shingles kept for the next pairs take 8 times as many bytes."""
_ROWS = 1_000
_SAMPLE = 500
_LEAST = 20


def keys_of(texts: Sequence[str], bare: Sequence[bool], apart: Sequence[str] | None = None) -> Keys:
    """What `search` needs of each text: 141 bytes. `bare` is as in `View`; equal texts count as such only where `apart`
    is equal too."""
    return {
        **digests_of(texts, apart),
        "signature": minhash.signatures(texts),
        "bare": np.array(bare, bool),
    }


def digests_of(texts: Sequence[str], apart: Sequence[str] | None = None) -> Keys:
    """The keys without which only equal texts can be found: 12 bytes a text."""
    parts = texts if apart is None else [f"{text}\0{other}" for text, other in zip(texts, apart, strict=True)]
    data = [part.encode("utf-8", "surrogatepass") for part in parts]
    digests = b"".join([hashlib.blake2b(one, digest_size=8).digest() for one in data])
    return {
        "text": np.frombuffer(digests, "<u8").astype(np.uint64),
        "length": np.array(list(map(len, texts)), np.uint32),
    }


def equal_pairs(keys: Keys) -> Pairs:
    """(pairs, 2): each row with an equal, not empty text, and the first row that has it."""
    _, first, inverse = np.unique(keys["text"], return_index=True, return_inverse=True)
    leader = first[inverse]
    others = np.flatnonzero((leader != np.arange(len(leader))) & (keys["length"] > 0))
    return np.stack([leader[others], others], axis=1)


def candidates(
    keys: Keys, threshold: float, groups: UnionFind, ignored: shingles.Hashes, least_words: int = 0
) -> Iterator[Pairs]:
    """Pairs of different texts whose similarity may reach the threshold, in chunks that can be compared at once.

    Texts of fewer words (`keys["words"]`) than `least_words` are in no pair.

    No pair comes twice, and none whose rows `groups` has joined by the time its chunk is asked for: join what is
    found before asking for the next chunk, so that a large cluster takes about one comparison a row.
    """
    distinct = np.sort(np.unique(keys["text"], return_index=True)[1])
    distinct = distinct[keys["length"][distinct] > 0]
    if least_words:
        distinct = distinct[keys["words"][distinct] >= least_words]
    bands = minhash.band_keys(keys["signature"])
    mutes = minhash.muted(ignored[:0]), minhash.muted(ignored)
    tested = np.empty(0, np.int64)
    for band in range(minhash.BANDS):
        pairs = distinct[minhash.candidate_pairs(bands[distinct, band])]
        joined = groups.groups()
        pairs = pairs[joined[pairs[:, 0]] != joined[pairs[:, 1]]]
        both = keys["bare"][pairs].all(axis=1)
        likely = keys["length"][pairs].min(axis=1) < UNSURE
        for mute, which in zip(mutes, (~both, both), strict=True):
            likely[which] |= minhash.may_reach(threshold, keys["signature"], pairs[which], mute)
        pairs = pairs[likely]
        codes = np.sort(pairs[:, 0] << 32 | pairs[:, 1])  # by the first row
        codes = codes[~shingles.contains(tested, codes)]
        tested = np.sort(np.concatenate((tested, codes)))
        for chunk in _chunks(np.stack([codes >> 32, codes & 0xFFFFFFFF], axis=1), keys["length"]):
            open_ones = [groups.find(one) != groups.find(other) for one, other in chunk.tolist()]
            if any(open_ones):
                yield chunk[open_ones]


def _chunks(pairs: Pairs, lengths: NDArray[np.uint32]) -> Iterator[Pairs]:
    """The pairs in their order, so many at once that their texts stay within the budgets."""
    if not len(pairs):
        return
    fresh = np.concatenate(([True], pairs[1:, 0] != pairs[:-1, 0]))
    read = lengths[pairs[:, 1]].astype(np.int64) + np.where(fresh, lengths[pairs[:, 0]], 0)
    number = np.maximum(np.cumsum(read) // _CHARACTERS, np.cumsum(1 + fresh) // _ROWS)
    yield from np.split(pairs, np.flatnonzero(np.diff(number)) + 1)


@dataclass(frozen=True)
class View:
    """What a step compares of a row: texts, of which the first decides, and whatever else it wants to know of both.

    Of a `bare` one the shingles that many rows share are left out of the first text.
    """

    texts: tuple[str, ...]
    bare: bool = False
    more: Any = None


Views = Callable[[Sequence[Example]], Sequence[View]]
Seen = tuple[list[shingles.Hashes], Any]


class Reader:
    """Rows that are compared, read in parts; the shingles of those read last are kept up to a budget."""

    def __init__(self, rows: Rows, views: Views, ignored: shingles.Hashes) -> None:
        self._rows, self._views, self.ignored = rows, views, ignored
        self._kept: dict[int, Seen] = {}
        self._size = 0

    def pairs(self, pairs: Pairs) -> Iterator[tuple[int, int, Seen, Seen]]:
        """Each pair of a chunk with what is compared: the shingles of the rows' texts, and the rest of their views."""
        self._load(np.unique(pairs).tolist())
        for one, other in pairs.tolist():
            yield one, other, self._kept[one], self._kept[other]

    def _load(self, wanted: list[int]) -> None:
        if self._size > _CHARACTERS:
            self._kept = {row: self._kept[row] for row in wanted if row in self._kept}
            self._size = sum(len(found) for seen in self._kept.values() for found in seen[0])
        new = [row for row in wanted if row not in self._kept]
        views = self._views(self._rows.read(new)) if new else []
        found = iter(shingles.sets([text for view in views for text in view.texts]))
        for row, view in zip(new, views, strict=True):
            texts = [next(found) for _ in view.texts]
            if view.bare:
                texts[0] = shingles.without(texts[0], self.ignored)
            self._kept[row] = texts, view.more
            self._size += sum(map(len, view.texts))


@dataclass(frozen=True)
class Found:
    """Which rows are alike; which of them are the same to the step; and for each of these the one it is most like."""

    alike: UnionFind
    same: UnionFind
    links: dict[int, tuple[int, float]]

    def add_equal(self, pairs: Pairs) -> None:
        """Each row with the first one that says the same, before anything else is found."""
        for groups in (self.alike, self.same):
            groups.join_to_first(pairs)
        for one, other in reversed(pairs.tolist()):  # a first row's link is the first of the others
            self.links[one] = other, 1.0
            self.links[other] = one, 1.0

    def add(self, one: int, other: int, similarity: float, same: bool) -> None:
        self.alike.union(one, other)
        if same:
            self.same.union(one, other)
            for row, neighbour in ((one, other), (other, one)):
                if row not in self.links or similarity > self.links[row][1]:
                    self.links[row] = neighbour, similarity


def search(
    keys: Keys, threshold: float, reader: Reader, same: Callable[[Seen, Seen, int], bool], least_words: int = 0
) -> Found:
    """Groups of rows whose first texts have at least the threshold's similarity; `same` decides on a pair of those,
    which have so many shingles in common.

    Texts of fewer than `least_words` words are alike only where they are equal."""
    count = len(keys["text"])
    found = Found(UnionFind(count), UnionFind(count), {})
    found.add_equal(equal_pairs(keys))
    for pairs in candidates(keys, threshold, found.same, reader.ignored, least_words):
        for one, other, left, right in reader.pairs(pairs):
            if found.same.find(one) != found.same.find(other):
                first, second = left[0][0], right[0][0]
                similarity = shingles.jaccard(first, second)
                if similarity >= threshold:
                    shared = shingles.shared(similarity, len(first) + len(second))
                    found.add(one, other, similarity, same(left, right, shared))
    return found


def similarities(pairs: Sequence[tuple[int, int]], keys: Keys, reader: Reader) -> list[float]:
    """The similarity of the first texts of each pair; equal texts are not read."""
    text, out = keys["text"], dict[tuple[int, int], float]()
    unequal = sorted((one, other) for one, other in pairs if text[one] != text[other])
    array = np.array(unequal, np.int64).reshape(-1, 2)
    for chunk in _chunks(array, keys["length"]):
        for one, other, left, right in reader.pairs(chunk):
            out[one, other] = shingles.jaccard(left[0][0], right[0][0])
    return [out.get(pair, 1.0) for pair in pairs]


def shared_shingles(rows: Rows, views: Views, share: float) -> shingles.Hashes:
    """The shingles in more than this share of up to 500 bare rows, and in 20 of them at least: the text of templates.

    Looked at are the different texts with the smallest digests: chosen as if by chance, yet mostly the same ones when
    rows come in.
    """
    bare = np.flatnonzero(rows.keys["bare"])
    sample = np.sort(bare[np.unique(rows.keys["text"][bare], return_index=True)[1][:_SAMPLE]]).tolist()
    texts = [view.texts[0] for view in views(rows.read(sample))] if sample else []
    return shingles.common(shingles.sets(texts), share, _LEAST)
