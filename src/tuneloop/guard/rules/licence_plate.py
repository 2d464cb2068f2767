"""Rule `licence_plate`: plates of Chinese vehicles (GA 36), those of electric ones included."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import ClassVar

from tuneloop.guard.borders import RIGHT, before
from tuneloop.guard.digits import redraw
from tuneloop.guard.rules import Draw, Rule, Span, Words

_PROVINCE = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼"
_PLATE = re.compile(
    rf"[{_PROVINCE}][A-HJ-NP-Z]([·•・\- ]?)"
    r"(?:[A-HJ-NP-Z0-9]{4}(?:[A-HJ-NP-Z0-9]|[挂学警港澳])|[A-HJ-NP-Z][A-HJ-NP-Z0-9][0-9]{4}|[0-9]{5}[A-HJ-NP-Z])"
    rf"{RIGHT}"
)
_NAMED = re.compile("(?:车牌|牌照|车号|号牌)[^0-9A-Z。\n]{0,6}$")
_COMMON = "云新青黑宁贵"  # also the last character of everyday words: 最新GPT4001, 阿里云ECS2020


class LicencePlate(Rule):
    """Plates such as 京A12345 and 粤B·D12345. The letters I and O stand on no plate."""

    DIGITS: ClassVar[str | None] = r"[A-HJ-NP-Z0-9]{2}"  # the first of three digits in a row of five or six
    WORDS: ClassVar[Words] = re.compile(f"[{_PROVINCE}][A-HJ-NP-Z]")

    def find(self, text: str) -> Iterable[Span]:
        for match in _PLATE.finditer(text):
            number = match[0][2:]
            named = match[1] in ("·", "•", "・", "-") or _NAMED.search(before(text, match.start()))
            if sum(character.isdigit() for character in number) >= 3 and (named or match[0][0] not in _COMMON):
                yield Span(match.start(), match.end())

    def surrogate(self, text: str, draw: Draw) -> str:
        return text[0] + "I" + redraw(text[2:], draw.random)
