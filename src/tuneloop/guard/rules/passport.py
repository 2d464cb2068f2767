"""Rule `passport`: numbers of passports and of permits to travel to and from Hong Kong, Macao and Taiwan."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import ClassVar

from tuneloop.guard import digits
from tuneloop.guard.borders import BEGUN, FIVE_DIGITS, RIGHT, label, labelled
from tuneloop.guard.rules import Draw, Rule, Span, Words

_NUMBER = re.compile(rf"[0-9](?<![0-9].)(?<!0(?=00))[0-9]{{5,8}}{RIGHT}")
_LABEL = label("护照|通行证|回乡证|台胞证|(?<![a-z])passport", "[A-Za-z]{1,2}-?")
_CHINESE = re.compile(rf"E{BEGUN}(?:(?!000)[0-9]{{8}}|[A-HJ-NP-Z](?!000)[0-9]{{7}}){RIGHT}")


class Passport(Rule):
    """Numbers after 护照, 通行证 or `passport`. Hints only: Chinese passports (E12345678) without the word."""

    DIGITS: ClassVar[str | None] = FIVE_DIGITS
    WORDS: ClassVar[Words] = re.compile("护照|通行证|回乡证|台胞证|(?i:passport)|E[0-9A-HJ-NP-Z]")

    def find(self, text: str) -> Iterable[Span]:
        for match in _NUMBER.finditer(text):
            start = labelled(_LABEL, text, match.start())
            if start is not None:
                yield Span(start, match.end())
        for match in _CHINESE.finditer(text):
            yield Span(match.start(), match.end(), "weak")

    def surrogate(self, text: str, draw: Draw) -> str:
        count = len(digits.only(text))
        return digits.pour("000" + digits.drawn(count - 3, draw.random), digits.redraw(text, draw.random))
