"""Rule `address`: postal addresses down to the house, or after 住址, 地址. Hints, never more."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import ClassVar

from tuneloop.guard.borders import BEGUN, RIGHT, before
from tuneloop.guard.rules import Draw, Rule, Span, Strength, Words

_HAN = "\u4e00-\u9fff"
_NUMERAL = "0-9一二三四五六七八九十百"
_ROAD = "路|街|大道|巷|弄|胡同|村"
_HOUSE = re.compile(
    rf"(?:{_ROAD})(?:[{_NUMERAL}]{{1,6}}(?:号院?|弄)|[A-Za-z0-9]{{1,4}}(?:座|栋|幢|号楼))"
    rf"(?:[A-Za-z\-{_NUMERAL}]{{1,6}}(?:号楼|号|楼|栋|幢|座|单元|室|层|户))*(?: ?[0-9]{{3,6}}(?![0-9]))?"
)
_WHOLE = "(?:(?<![0-9])|(?![0-9]))"  # the end of a long text, but never within a number
_LEAD = re.compile(rf"[^{_HAN}0-9]|位于|住在|家住|寄到|送到|送至|搬到|来自|地址|住址|前往|[在到至是为]")
_DISTRICT = re.compile("[省市州盟区县旗镇乡]")
_LABELLED = re.compile(
    rf"(?:住址|地址|居住地|户籍地)\"?\s?(?:[:：]|是|为)\s?\"?"
    rf"([{_HAN}][{_HAN}0-9A-Za-z\-（）()#]{{5,60}}{_WHOLE}(?: [0-9]{{6}}(?![0-9]))?)"
)
_ENGLISH = re.compile(
    rf"[0-9]{BEGUN}[0-9]{{0,4}}[A-Z]? (?:[NSEW]\.? |North |South |East |West )?"
    r"(?:[A-Z][a-z]+ |[0-9]{1,3}(?:st|nd|rd|th) ){1,3}"
    r"(?:Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Way|Place|Pl|Square|Sq|Terrace|Highway)"
    rf"{RIGHT}\.?(?:,? (?:Apt|Apartment|Suite|Ste|Unit|#)\.? ?[0-9A-Z\-]{{1,6}}{RIGHT})?"
    r"(?:,? (?:[A-Z][a-z]+ ?){1,3},? [A-Z]{2} [0-9]{5}(?:-[0-9]{4})?(?![0-9]))?"
)


class Address(Rule):
    """Hints at addresses: a road with a house number, Chinese or English, and what follows 地址： or 住址：."""

    WORDS: ClassVar[Words] = (
        *_ROAD.split("|"),
        *("住址", "地址", "居住地", "户籍地"),
        *("St", "Ave", "R", "Bl", "L", "Dr", "C", "Way", "Pl", "Sq", "Terrace", "Highway"),
    )
    STRONGEST: ClassVar[Strength] = "weak"

    def find(self, text: str) -> Iterable[Span]:
        for match in _HOUSE.finditer(text):
            yield Span(_beginning(text, match.start()), match.end(), "weak")
        for match in _LABELLED.finditer(text):
            yield Span(*match.span(1), "weak")
        for match in _ENGLISH.finditer(text):
            yield Span(match.start(), match.end(), "weak")

    def surrogate(self, text: str, draw: Draw) -> str:
        house = draw.random.randint(1, 999)
        return f"{house} Example Street" if text.isascii() else f"示例市示例区示例路{house}号"


def _beginning(text: str, road: int) -> int:
    """Where an address begins whose word for road stands there: Chinese puts no space in front of it."""
    left = before(text, road)
    left = left[max((match.end() for match in _LEAD.finditer(left)), default=0) :]
    left = left if _DISTRICT.search(left) else left[-4:]
    return road - len(left.lstrip("0123456789"))  # the end of some other number
