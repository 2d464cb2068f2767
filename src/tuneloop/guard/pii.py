"""Finds personal data in a text, in Chinese and English, and masks it.

Most texts hold none: one pattern and a few words decide that before any rule runs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import TYPE_CHECKING, NamedTuple

from tuneloop.guard import screen
from tuneloop.guard.rules import RULES, Rule, Span, Strength

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_WIDE_CHARACTERS = "０１２３４５６７８９＠"
_WIDE = re.compile(f"[{_WIDE_CHARACTERS}]")
_FOLD = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_CJK = re.compile("[\u3400-\u9fff]")
_FEW = 64
_SHORT = 40
"""Characters of a key or a name, which comes again in every row."""


@dataclass(frozen=True, slots=True)
class Found:
    """One find; `text` is the value itself and belongs in no report: show `digits.shape(text)`."""

    kind: str
    start: int
    end: int
    text: str
    strength: Strength


def find(
    text: str, kinds: Collection[str] | None = None, strength: Strength = "weak", known: Iterable[Found] = ()
) -> list[Found]:
    """Personal data in order of place, never overlapping; where finds overlap, one covers them all.

    kinds: names of rules, all if None. strength: `strong` leaves hints out. known: finds elsewhere in the same
    document, whose values are found here too, even without the keyword that gave them away there.
    All rules run whatever kinds are asked for: otherwise a part of one number could pass for another kind of number.
    """
    rest, chosen = fold(text), list[Found]()
    rules = _with_clues(rest, strength)
    if not rules and not known:
        return []
    values: dict[str, tuple[str, Strength]]
    values = {fold(one.text): (one.kind, one.strength) for one in known if _speaks(one.text)}
    while True:  # the next round sees what hid behind a find, and values said again without their word
        new = _disjoint([*_spans(rules, rest, strength), *_again(rest, values)])
        if not new:
            break
        for kind, span in new:
            chosen.append(Found(kind, span.start, span.end, text[span.start : span.end], span.strength))
            value = rest[span.start : span.end]
            if _speaks(value):
                values.setdefault(value, (kind, span.strength))
        rest = _blanked(rest, new)
    sure = {one.text: one.kind for one in reversed(chosen) if one.strength == "strong"}
    chosen = [
        replace(one, kind=sure[one.text], strength="strong") if one.strength == "weak" and one.text in sure else one
        for one in chosen
    ]
    return sorted((one for one in chosen if kinds is None or one.kind in kinds), key=lambda one: one.start)


def may_hold(text: str, strength: Strength = "weak") -> bool:
    """Whether `find` may find something in a text or in a part of it: False for most texts, and ten times as fast."""
    return bool(_with_clues(fold(text), strength))


def may_hold_each(texts: Sequence[str], strength: Strength = "weak") -> NDArray[np.bool_]:
    """`may_hold` of many texts, or True where only that can tell; a tenth of its price."""
    import numpy as np

    screens, column = _screens(strength), screen.column(texts)
    others = [*screens.others, [_WIDE.pattern]] if _is_wide(texts) else screens.others
    out = screen.matching_any(column, others).copy()
    rows = np.flatnonzero(screen.matching(column, screens.number))
    near = column.gather(rows)
    found = screen.matching(near, screens.alone)
    for patterns in screens.together:
        found |= screen.matching(near, *patterns)
    out[rows] |= found
    return out


def _is_wide(texts: Sequence[str]) -> bool:
    """Whether one of many texts has a full-width digit or ＠: one look at their characters is faster than a pattern."""
    import numpy as np

    whole = "".join([text for text in texts if not text.isascii()])
    codes = np.frombuffer(whole.encode("utf-16-le", "surrogatepass"), "<u2")
    digits = codes - np.uint16(ord("０")) < 10  # unsigned: what is smaller becomes large
    return bool((digits | (codes == ord("＠"))).any())


def fold(text: str) -> str:
    """Full-width letters, digits and signs as ASCII, of the same length, where there are full-width digits or an ＠."""
    return text.translate(_FOLD) if not text.isascii() and _WIDE.search(text) else text


def mask(text: str, found: Sequence[Found]) -> str:
    """The text with `[KIND]` in place of each find."""
    return replaced(text, found, [f"[{one.kind.upper()}]" for one in found])


def replaced(text: str, found: Sequence[Found], instead: Sequence[str]) -> str:
    """The text with other words in place of each find; `found` is in order, as `find` gives it."""
    parts, end = list[str](), 0
    for one, words in zip(found, instead, strict=True):
        parts += text[end : one.start], words
        end = one.end
    return "".join([*parts, text[end:]])


def count(found: Iterable[Found]) -> Counter[tuple[str, Strength]]:
    """How many of each kind and strength."""
    return Counter((one.kind, one.strength) for one in found)


class _Clued(NamedTuple):
    """A rule, and whether a text has its words."""

    has_words: Callable[[str], object]
    name: str
    rule: Rule


class _Gate(NamedTuple):
    """What decides, before any rule runs, which rules may find something in a text."""

    number: re.Pattern[str]
    """Matches where one of `by_number` may: one pass over the text instead of one for each."""
    by_number: tuple[tuple[re.Pattern[str], tuple[_Clued, ...]], ...]
    by_word: tuple[_Clued, ...]


@cache
def _gate(strength: Strength) -> _Gate:
    numbers: dict[str, list[_Clued]] = {}
    by_word: list[_Clued] = []
    for name in RULES.names():
        rule = RULES.make(name)
        if strength == "weak" or rule.STRONGEST == "strong":
            group = by_word if rule.DIGITS is None else numbers.setdefault(rule.DIGITS, [])
            group.append(_Clued(_test_of(rule.WORDS), name, rule))
    by_number = tuple((re.compile(f"[0-9](?:{digits})"), tuple(rules)) for digits, rules in numbers.items())
    return _Gate(re.compile(f"[0-9](?:{'|'.join(numbers)})"), by_number, tuple(by_word))


class _Screens(NamedTuple):
    """Patterns for many texts at once; those that Rust does not know are left out."""

    number: str
    """Matches wherever `alone` or the first of a group of `together` does."""
    alone: str
    """Matches where a rule may find a number that needs no word."""
    together: list[list[str]]
    """All patterns of one match where some rules may find something."""
    others: list[list[str]]
    """The same, of what need not be near a number."""


@cache
def _screens(strength: Strength) -> _Screens:
    gate = _gate(strength)
    alone, screens = list[str](), _Screens("", "", [], [])
    for digits, rules in [*gate.by_number, (None, gate.by_word)]:
        words = [_pattern_of(clued.rule.WORDS) for clued in rules]
        more = [pattern for pattern in ["" if "" in words else "|".join(words)] if pattern and screen.is_plain(pattern)]
        if digits is None or not screen.is_plain(digits.pattern):
            screens.others.append(more)
        elif more:
            screens.together.append([digits.pattern, *more])
        else:
            alone.append(digits.pattern)
    number = "|".join([*alone, *(first for first, *_ in screens.together)])
    return screens._replace(number=number, alone="|".join(alone))


def _pattern_of(words: tuple[str, ...] | re.Pattern[str]) -> str:
    """One pattern for a rule's words; empty where it needs none."""
    return words.pattern if isinstance(words, re.Pattern) else "|".join(map(re.escape, words))


def _test_of(words: tuple[str, ...] | re.Pattern[str]) -> Callable[[str], object]:
    if isinstance(words, re.Pattern):
        return words.search
    return (lambda text: any(map(text.__contains__, words))) if words else (lambda text: True)


def _with_clues(text: str, strength: Strength) -> Mapping[str, Rule]:
    """The rules that may find something."""
    return _remembered(text, strength) if len(text) <= _SHORT else _clues(text, strength)


@lru_cache(maxsize=4_096)
def _remembered(text: str, strength: Strength) -> Mapping[str, Rule]:
    return _clues(text, strength)


def _clues(text: str, strength: Strength) -> Mapping[str, Rule]:
    gate = _gate(strength)
    groups = [gate.by_word]
    first = gate.number.search(text)
    if first:
        groups += [rules for digits, rules in gate.by_number if digits.search(text, first.start())]
    return {name: rule for group in groups for has_words, name, rule in group if has_words(text)}


def _spans(rules: Mapping[str, Rule], text: str, strength: Strength) -> list[tuple[str, Span]]:
    found = [(name, span) for name, rule in rules.items() for span in rule.find(text)]
    return found if strength == "weak" else [(name, span) for name, span in found if span.strength == "strong"]


def _speaks(value: str) -> bool:
    """Whether a value is long enough to be looked for without the words around it."""
    return len(value) >= 5 or (len(value) >= 2 and bool(_CJK.match(value)))


def _again(text: str, values: dict[str, tuple[str, Strength]]) -> list[tuple[str, Span]]:
    """Where known values stand, whatever stands beside them."""
    if len(values) <= _FEW:
        places = [(text.find(value), value) for value in values]
        starts = [(start, value) for start, value in places if start >= 0]
        for start, value in starts:  # grows: each place leads to the next
            following = text.find(value, start + 1)
            if following >= 0:
                starts.append((following, value))
    else:  # a document that is a table of people: time grows with its length, not with its people
        starts = [
            (start, text[start : start + length])
            for length in {len(value) for value in values}
            for start in range(len(text) - length + 1)
            if text[start : start + length] in values
        ]
    return [
        (values[value][0], Span(start, start + len(value), values[value][1]))
        for start, value in starts
        if _is_whole(text, start, start + len(value))
    ]


def _is_whole(text: str, start: int, end: int) -> bool:
    """Whether a value ends where a word or number does."""
    left, right = text[max(0, start - 1) : start + 1], text[end - 1 : end + 1]
    return not any(len(pair) == 2 and pair.isascii() and pair.isalnum() for pair in (left, right))


def _disjoint(spans: list[tuple[str, Span]]) -> list[tuple[str, Span]]:
    """Overlapping strong spans become one, so that no half of a number stays; then hints that touch none of them.

    A hint that touches a strong span waits for the next round, in which that span is blank.
    """
    strong = _unions([one for one in spans if one[1].strength == "strong"])
    weak = _unions([one for one in spans if one[1].strength == "weak"])
    out: list[tuple[str, Span]] = []
    for kind, span in sorted([*strong, *weak], key=lambda one: (one[1].start, one[1].strength)):
        if out and span.start < out[-1][1].end:
            if span.strength == "weak":
                continue
            out.pop()  # a hint that began earlier
        out.append((kind, span))
    return out


def _unions(spans: list[tuple[str, Span]]) -> list[tuple[str, Span]]:
    """Spans without overlap, in order; a union gets the kind of its longest part."""
    out: list[tuple[str, Span]] = []
    longest = 0
    for kind, span in sorted(spans, key=lambda one: (one[1].start, -one[1].end, one[0])):
        length = span.end - span.start
        if not out or span.start >= out[-1][1].end:
            out.append((kind, span))
            longest = length
        else:
            union = out[-1][1]._replace(end=max(out[-1][1].end, span.end))
            out[-1] = (kind if length > longest else out[-1][0], union)
            longest = max(longest, length)
    return out


def _blanked(text: str, found: Iterable[tuple[str, Span]]) -> str:
    """The text with blanks of the same length, bordered like a mask: what follows finds the same beside both."""
    parts, end = list[str](), 0
    for _, span in found:
        parts += text[end : span.start], "[", "\0" * (span.end - span.start - 2), "]"
        end = span.end
    return "".join([*parts, text[end:]])
