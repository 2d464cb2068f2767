"""Rule `cn_id`: numbers of Chinese resident identity cards (GB 11643), 18 digits, and 15 digits of old ones."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date
from typing import ClassVar

from tuneloop.guard import digits
from tuneloop.guard.borders import BEGUN, LONG_NUMBER, RIGHT, label, labelled
from tuneloop.guard.rules import Draw, Rule, Span, Strength

PROVINCES = frozenset(
    "11 12 13 14 15 21 22 23 31 32 33 34 35 36 37 41 42 43 44 45 46 50 51 52 53 54 61 62 63 64 65 71 81 82 83".split()
)
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CHECK_DIGITS = "10X98765432"
_NUMBER = re.compile(
    rf"[1-8]{BEGUN}(?<![0-9][\-.].)(?<!\+.)[0-9]{{5}}(?:[ \-]?(?:18|19|20)[0-9]{{6}}[ \-]?[0-9]{{3}}[0-9Xx]|[0-9]{{9}})"
    rf"{RIGHT}(?!\.[0-9])"
)
_LABEL = label("身份证|证件|(?<![a-z])(?:id card|identity card|resident id|national id|citizen id)")


class CnId(Rule):
    """Identity card numbers with a province, a date of birth and a right check digit, or with 身份证 in front.

    Hints only: 18 digits with a wrong check digit, and 15 digits (which have none), both without the word in front.
    """

    DIGITS: ClassVar[str | None] = LONG_NUMBER

    def find(self, text: str) -> Iterable[Span]:
        for match in _NUMBER.finditer(text):
            value = re.sub("[ -]", "", match[0]).upper()
            if value[:2] in PROVINCES and _is_birthday(value[6:-4] if len(value) == 18 else "19" + value[6:12]):
                strong = _is_checked(value) or labelled(_LABEL, text, match.start()) is not None
                strength: Strength = "strong" if strong else "weak"
                yield Span(match.start(), match.end(), strength)

    def surrogate(self, text: str, draw: Draw) -> str:
        last = text[-1] if text[-1] in "Xx" else digits.drawn(1, draw.random)
        return "99" + digits.redraw(text[2:-1], draw.random) + last  # no province has 99


def check_digit(first_17: str) -> str:
    """The 18th character for the first 17 digits (ISO 7064 MOD 11-2)."""
    return _CHECK_DIGITS[sum(int(digit) * weight for digit, weight in zip(first_17, _WEIGHTS, strict=True)) % 11]


def _is_checked(value: str) -> bool:
    return len(value) == 18 and check_digit(value[:17]) == value[17]


def _is_birthday(value: str) -> bool:
    try:
        return date(int(value[:4]), int(value[4:6]), int(value[6:])) >= date(1850, 1, 1)
    except ValueError:
        return False
