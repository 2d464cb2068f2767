"""How much of a text repeats itself: the loops that language models fall into, pasted twice, one letter held down."""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

from tuneloop.texts.words import HAN, KANA

FEWEST_TOKENS = 30  # below that, "ha ha ha" is no defect
GRAM = 5  # words, Chinese characters each one, that count as the same when they come again
_ANCHORS, _ANCHOR = 8, 12
_TOKEN = re.compile(rf"[{HAN}{KANA}]|[^\W{HAN}{KANA}]+")
_HELD_DOWN = re.compile(r"([^\W_])\1{14,}")


class Repetition(NamedTuple):
    """The share of a text that says again what it said, and the piece that comes most often."""

    share: float
    span: str
    times: int


def may_repeat(text: str) -> bool:
    """A quick look: do some of 8 pieces spread over the text come again? A text half of which is repeated has some."""
    step = (len(text) - _ANCHOR) / _ANCHORS
    if step < _ANCHOR / 2:
        return len(text) >= FEWEST_TOKENS
    again = 0
    for number in range(_ANCHORS):
        start = int(number * step)
        again += text.find(text[start : start + _ANCHOR], start + 1) >= 0
    return again > 1


def repetition(text: str) -> Repetition | None:
    """The repeated share of a text: of its runs of 5 words or Chinese characters, those that stood there before.

    Natural texts have under 0.25, songs, tables and worked examples included. None where there are too few words.
    """
    held = max(_HELD_DOWN.finditer(text), key=lambda run: len(run[0]), default=None)
    if held is not None and len(held[0]) * 2 > len(text):
        return Repetition(len(held[0]) / len(text), held[0][:20], len(held[0]))
    tokens = [(found[0], found.start(), found.end()) for found in _TOKEN.finditer(text)]
    if len(tokens) < FEWEST_TOKENS:
        return None
    words = [token[0] for token in tokens]
    grams = list(zip(*(words[start:] for start in range(GRAM)), strict=False))
    counts = Counter(grams)
    gram, times = counts.most_common(1)[0]
    first = grams.index(gram)
    return Repetition(1 - len(counts) / len(grams), text[tokens[first][1] : tokens[first + GRAM - 1][2]], times)
