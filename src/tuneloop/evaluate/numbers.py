"""Numbers read out of answers, alike for Chinese and English; knows nothing of metrics."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Literal

from tuneloop.evaluate.text import nfkc

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d{1,3}(?![\w.]))?"
_NUMBER = re.compile(
    rf"(?P<sign>(?<![\w)%.])[-−－])?(?P<money>[$¥€£])?(?P<inner>(?<=[$¥€£])[-−])?(?P<digits>{_DIGITS})"
    r"\s?(?P<unit>万亿|[万萬亿億]|[%‰])?",
    re.ASCII,
)
_UNITS = {"万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8, "万亿": 10**12}
_BOXED = re.compile(r"\\boxed\s*\{")
Percent = Literal["number", "share"]
"""What 50% is: the `number` 50, or the `share` 0.5."""


def numbers(text: str, percent: Percent = "number") -> list[Decimal]:
    """The numbers of a text in their order: full-width digits, thousands separators, signs, 万 and 亿."""
    return [_value(found, percent) for found in _NUMBER.finditer(nfkc(text))]


def final_number(text: str, marker: str, percent: Percent = "number") -> Decimal | None:
    """The number that an answer ends with: the first after the last marker, else after the last `\\boxed{`, else the
    last of the text; None where there is none."""
    text = nfkc(text)
    marked = text.rpartition(nfkc(marker))[2] if marker and nfkc(marker) in text else None
    if marked is None:
        boxed = [found.end() for found in _BOXED.finditer(text)]
        marked = text[boxed[-1] :] if boxed else None
    if marked is not None and (found := _NUMBER.search(marked)) is not None:
        return _value(found, percent)
    given = numbers(text, percent)
    return given[-1] if given else None


def is_number(text: str) -> bool:
    """Whether a text is a number and nothing else but its unit."""
    found = _NUMBER.search(text := nfkc(text).strip())
    return found is not None and found.start() == 0 and not any(map(str.isalnum, text[found.end() :]))


def _value(found: re.Match[str], percent: Percent) -> Decimal:
    value = Decimal(found["digits"].replace(",", ""))
    if found["unit"] in _UNITS:
        value *= _UNITS[found["unit"]]
    elif found["unit"] and percent == "share":
        value /= 100 if found["unit"] == "%" else 1000
    return value.copy_negate() if found["sign"] or found["inner"] else value
