"""Texts of the pages: all of them in both languages."""

from __future__ import annotations

import string
from typing import get_args

import pytest

from tuneloop.web.talk import Reason
from tuneloop.web.words import WORDS, spoken, word


def places(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_each_text_is_there_in_both_languages_with_the_same_places() -> None:
    for name, (english, chinese) in WORDS.items():
        assert english and chinese and places(english) == places(chinese), name
        if name != "language":
            assert english.isascii() and not chinese.isascii(), name


def test_there_are_words_for_every_reason() -> None:
    for reason in get_args(Reason):
        assert word(f"not_{reason}", "zh", detail="d") != word(f"not_{reason}", "en", detail="d")


@pytest.mark.parametrize(
    ("header", "language"),
    [("", "en"), ("zh-CN,zh;q=0.9,en;q=0.8", "zh"), ("en-US,zh;q=0.5", "en"), ("fr, zh-TW", "zh"), ("de", "en")],
)
def test_the_language_is_the_browsers_first_that_we_speak(header: str, language: str) -> None:
    assert spoken(header) == language
