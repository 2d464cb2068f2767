"""Where a value may begin and end, and which words in front of it say what it is. Pieces of patterns."""

from __future__ import annotations

import re

LEFT = r"(?<![0-9A-Za-z])"
RIGHT = r"(?![0-9A-Za-z])"
BEGUN = r"(?<![0-9A-Za-z].)"
"""LEFT, but behind the first character of a value: a search that may begin with `[0-9]` skips all else at once."""
LINK = (  # bounded everywhere, so that no text makes the search slow; fits prose, forms and JSON
    r"[\s_\-]{0,2}(?:号码|编号|号|代码|number|num|no|id|code)?[.#]{0,2}[\"'”’]?\s{0,2}(?:是|为|is|was)?[:：=]?\s{0,2}"
    r"[\"'“‘]?"
)
"""Between a word and its value: `护照号码是`, `Passport No.: `, `passport_number": "`."""
LONG_NUMBER = r"(?:[ ().\-\u2010-\u2013]{0,3}[0-9]){6}"
"""What follows a digit in a number of seven digits and more, with the separators that people write into numbers."""
FIVE_DIGITS = r"(?:[\- ]?[0-9]){4}"

_SUM_BEFORE = re.compile(r"(?:[0-9)]\s?[+×÷^]\s?|[0-9)]\s[*/\-]\s|[=<>≈]\s|[$¥￥€£]\s?)$")
_SUM_AFTER = re.compile(
    r"\s?[+×÷^]\s?[0-9(]|\s[*/=<>≈\-]\s?[0-9(]|%|\s?(?:元|万|亿|美元|米|公里|千米|吨|km|kg|dollars|people|years|meters)"
)


def is_sum(text: str, start: int, end: int) -> bool:
    """Whether a number is part of a calculation, an amount or a measure; `<td>` and `**` around it are none."""
    return bool(_SUM_BEFORE.search(before(text, start)) or _SUM_AFTER.match(text[end : end + 12]))


def label(words: str, prefix: str = "") -> re.Pattern[str]:
    """The words that stand in front of a number, up to its first digit; `prefix` belongs to the number already."""
    return re.compile(rf"(?:{words}){LINK}((?:{prefix})?)$", re.IGNORECASE)


def labelled(pattern: re.Pattern[str], text: str, first_digit: int) -> int | None:
    """Where a number begins whose first digit stands there, if the words of `label` stand in front of it.

    Looking back from the few numbers of a text is much faster than looking for all words of all languages.
    """
    left = before(text, first_digit, 48)
    match = pattern.search(left)
    return None if match is None else first_digit - len(left) + match.start(1)


def before(text: str, start: int, width: int = 28) -> str:
    """What stands left of a place, for patterns that end in `$`."""
    return text[max(0, start - width) : start]
