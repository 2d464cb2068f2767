"""Finds texts of an evaluation in other texts: runs of n words or Chinese characters that both have.

N-grams are kept as 64-bit hashes in sorted arrays. A phrase that many evaluation rows have is their template and proves
nothing. Shapes: T tokens of a text, G n-grams of all evaluation texts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tuneloop.texts.words import HAN, KANA, normalise

TEMPLATE_GRAM = 8  # tokens in a row that several evaluation rows have
TEMPLATE_ROWS, TEMPLATE_SHARE = 5, 0.02  # in how many rows at least, and in which share of them
FIRST = 5  # tokens by which a text shorter than n is looked up
ENOUGH = 5.0  # words that make a text of its own; a Chinese character is 5/8 of a word
CHARACTER = ENOUGH / 8
BLOOM = 32  # places for each hash in the quick first table

_TOKEN = re.compile(rf"[{HAN}{KANA}]|[^\W{HAN}{KANA}]+")
_CJK = re.compile(f"[{HAN}{KANA}]")
_FACTOR = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64
_SPACES = {code: " " for code in range(128) if not (chr(code).isalnum() or chr(code) == "_")}
_INVERSE = pow(_FACTOR, -1, 2**64)


class Item(NamedTuple):
    """One text of an evaluation row; `asked`: it is a question, which short texts must be to count."""

    file: str
    row: int
    text: str
    asked: bool


class Overlap(NamedTuple):
    """What a text has in common with an evaluation row, normalised."""

    file: str
    row: int
    span: str


class Index:
    """The n-grams of evaluation texts: of `words` words, or of `characters` tokens where one is a Chinese character."""

    def __init__(self, items: Iterable[Item], words: int, characters: int) -> None:
        self._sizes = (words, characters)
        self._items: list[tuple[str, int]] = []
        self._short: dict[int, list[tuple[int, int, int]]] = {}
        self._tiny: dict[int, int] = {}
        hashes: list[np.ndarray] = []
        owners: list[np.ndarray] = []
        for item, tokens, template in _without_templates(list(items)):
            owner = len(self._items)
            self._items.append((item.file, item.row))
            segments = _segments(~template)
            for start, end in segments:
                for _, grams, _ in self._grams(tokens[start:end], _hashed(tokens[start:end])):
                    hashes.append(grams)
                    owners.append(np.full(len(grams), owner, np.int32))
            if item.asked and len(segments) == 1:
                self._add_short(tokens[slice(*segments[0])], owner)
        every = np.concatenate(hashes) if hashes else np.zeros(0, np.uint64)
        order = np.argsort(every, kind="stable")
        self._owners_G = np.concatenate(owners)[order] if owners else np.zeros(0, np.int32)
        self._long = _Known(every[order])
        self._first = _Known(np.sort(np.fromiter(self._short, np.uint64, len(self._short))))

    def find(self, text: str, asked: bool) -> Overlap | None:
        """The first thing that a text has in common with an evaluation row; `asked`: the text is a whole question."""
        tokens = _tokens(text)
        hashes_T = _hashed(tokens)
        for starts, grams, size in self._grams(tokens, hashes_T):
            found = self._long.places(grams)
            if len(found):
                owner = int(self._owners_G[self._long.rank(int(grams[found[0]]))])
                return Overlap(*self._items[owner], _shown(_run(tokens, starts, size, found)))
        firsts = _windows(hashes_T, FIRST)
        for place in self._first.places(firsts):
            for size, whole, owner in self._short[int(firsts[place])]:
                if place + size <= len(tokens) and _whole(hashes_T[place : place + size]) == whole:
                    return Overlap(*self._items[owner], _shown(tokens[place : place + size]))
        if asked and 1 < len(tokens) <= 2 * FIRST and _whole(hashes_T) in self._tiny:
            return Overlap(*self._items[self._tiny[_whole(hashes_T)]], _shown(tokens))
        return None

    def _add_short(self, tokens: Sequence[str], owner: int) -> None:
        """A question shorter than n: all of it counts; a tiny one only where it is a whole question there too."""
        hashes = _hashed(tokens)
        if any(len(grams) for _, grams, _ in self._grams(tokens, hashes)):
            return
        amount = sum(CHARACTER if _CJK.match(token) else 1.0 for token in tokens)
        if amount >= ENOUGH and len(tokens) >= FIRST:
            self._short.setdefault(int(_windows(hashes, FIRST)[0]), []).append((len(tokens), _whole(hashes), owner))
        elif len(tokens) > 1:
            self._tiny.setdefault(_whole(hashes), owner)

    def _grams(
        self, tokens: Sequence[str], hashes_T: np.ndarray
    ) -> Iterator[tuple[np.ndarray | None, np.ndarray, int]]:
        """(first tokens, None for each in turn; hashes; number of tokens) of the n-grams of a text."""
        words, characters = self._sizes
        if words == characters:
            yield None, _windows(hashes_T, words), words
            return
        chinese_T = np.fromiter((_CJK.match(token) is not None for token in tokens), np.int64, len(tokens))
        before = np.concatenate([[0], np.cumsum(chinese_T)])
        for size, wants_chinese in ((words, False), (characters, True)):
            grams = _windows(hashes_T, size)
            has_chinese = before[size : size + len(grams)] > before[: len(grams)]
            places = np.flatnonzero(has_chinese == wants_chinese)
            yield places, grams[places], size


class _Known:
    """A set of hashes: a sorted array, and before it a table in which most other hashes find no mark."""

    def __init__(self, hashes: np.ndarray) -> None:
        bits = min(27, max(10, (len(hashes) * BLOOM).bit_length()))
        self._sorted, self._shift = hashes, np.uint64(64 - bits)
        self._table = np.zeros(1 << bits, bool)
        self._table[hashes >> self._shift] = True

    def places(self, hashes: np.ndarray) -> np.ndarray:
        """Where the known ones are."""
        maybe = np.flatnonzero(self._table[hashes >> self._shift])
        if not len(maybe):
            return maybe
        ranks = np.minimum(np.searchsorted(self._sorted, hashes[maybe]), len(self._sorted) - 1)
        return maybe[self._sorted[ranks] == hashes[maybe]]

    def rank(self, known: int) -> int:
        return int(np.searchsorted(self._sorted, np.uint64(known)))


def _run(tokens: Sequence[str], starts: np.ndarray | None, size: int, found: np.ndarray) -> Sequence[str]:
    """The tokens of the first n-grams that were found one after the other."""
    places = found if starts is None else starts[found]
    last = next((number for number in range(1, len(places)) if places[number] != places[number - 1] + 1), len(places))
    return tokens[int(places[0]) : int(places[last - 1]) + size]


def _tokens(text: str) -> list[str]:
    text = normalise(text)
    return text.translate(_SPACES).split() if text.isascii() else _TOKEN.findall(text)


def _hashed(tokens: Sequence[str]) -> np.ndarray:
    # Python's hash differs from process to process, and so does the index, which is made in each
    return np.fromiter(map(hash, tokens), np.int64, len(tokens)).view(np.uint64)


class _Powers:
    """Powers of a factor modulo 2**64, as many as the longest text needed so far."""

    def __init__(self, factor: int) -> None:
        self._factor, self._known = factor, np.ones(1, np.uint64)

    def first(self, count: int) -> np.ndarray:
        if len(self._known) < count:
            factors = np.full(2 * count, self._factor, np.uint64)
            factors[0] = 1
            self._known = np.cumprod(factors)
        return self._known[:count]


_POWERS, _INVERSES = _Powers(_FACTOR), _Powers(_INVERSE)


def _windows(hashes_T: np.ndarray, size: int) -> np.ndarray:
    """Hashes of all runs of `size` tokens: differences of a running polynomial, shifted back to the same power."""
    count = len(hashes_T) - size + 1
    if count < 1:
        return np.zeros(0, np.uint64)
    running = np.cumsum(hashes_T * _POWERS.first(len(hashes_T)))
    sums = running[size - 1 :].copy()
    sums[1:] -= running[:-size]
    return sums * _INVERSES.first(count)


def _whole(hashes: np.ndarray) -> int:
    return int(_windows(hashes, len(hashes))[0]) if len(hashes) else 0


def _without_templates(items: list[Item]) -> Iterable[tuple[Item, list[str], np.ndarray]]:
    """Each different text with its tokens and which of them belong to a phrase that many rows of its file have."""
    tokens = [_tokens(item.text) for item in items]
    hashes = [_hashed(each) for each in tokens]
    first: dict[tuple[str, int], int] = {}
    for number, item in enumerate(items):
        first.setdefault((item.file, _whole(hashes[number])), number)
    common: dict[str, np.ndarray] = {}
    for file in {item.file for item in items}:
        numbers = [number for (of, _), number in first.items() if of == file]
        grams = [np.unique(_windows(hashes[number], TEMPLATE_GRAM)) for number in numbers]
        values, counts = np.unique(np.concatenate(grams), return_counts=True)
        common[file] = values[counts >= max(TEMPLATE_ROWS, TEMPLATE_SHARE * len(numbers))]
    for number in first.values():
        covered = np.zeros(len(tokens[number]), bool)
        shared = np.isin(_windows(hashes[number], TEMPLATE_GRAM), common[items[number].file])
        for start in np.flatnonzero(shared):
            covered[start : start + TEMPLATE_GRAM] = True
        yield items[number], tokens[number], covered


def _segments(mask: np.ndarray) -> list[tuple[int, int]]:
    """[start, end) of the runs of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def _shown(tokens: Sequence[str]) -> str:
    """Tokens as text: Chinese characters close together, words apart."""
    return re.sub(rf"(?<=[{HAN}{KANA}]) | (?=[{HAN}{KANA}])", "", " ".join(tokens))
