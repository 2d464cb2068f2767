"""A text cut into the words that the audit counts: lower case; a Chinese or kana character is a word."""

from __future__ import annotations

import re

from tuneloop.texts.words import HAN, KANA

_UNIT = re.compile(rf"[{HAN}{KANA}]|[^\W_{HAN}{KANA}]+(?:['’][^\W_{HAN}{KANA}]+)*")
_HAN = re.compile(f"[{HAN}]")
_KANA = re.compile(f"[{KANA}]")


def words(text: str) -> list[str]:
    """The words of a text in their order, without punctuation."""
    return _UNIT.findall(text.lower())


def is_chinese(text: str) -> bool:
    """Whether a text has Chinese characters and, other than Japanese, no kana."""
    return _HAN.search(text) is not None and _KANA.search(text) is None


def chinese_words(text: str) -> list[str]:
    """The words of a Chinese text, by a dictionary."""
    import rjieba

    return [word for word in rjieba.cut(text.lower()) if _UNIT.search(word)]
