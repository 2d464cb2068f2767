"""Words, sameness and writing, in Chinese as in English."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.core.conversation import Example, Message, Origin
from tuneloop.data.encoding import common_characters
from tuneloop.texts.words import HAN, KANA, content_key, count_words, letters, normalise, script_of

ODD = (
    "aB1_'’.,- \n，。　中文的〇々②Ａéл×÷ªµ²\u0301\u200bァかン〆㐀\U00020001😀ﬁ℃；：（)~～…ß İ\u3099￥Ⅳ½"
    " ;\u0338=\ud800한"
)
"""Characters that a count on bytes could get wrong, alone and beside one another."""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0), ("。！？ ... \U0001f600", 0), ("你好，世界！", 4), ("It's a well-known 3.5", 4),
        ("我用Python3写代码", 6), ("wit , only labored gags ", 4),
        ("café naïve", 2), ("ひらがな", 4), ("한국어 문장", 2),
    ],
)  # fmt: skip
def test_words(text: str, words: int) -> None:
    assert count_words(text) == words


@given(st.text(alphabet="的一是ab 1", max_size=20), st.text(alphabet="的一是ab 1", max_size=20))
def test_words_add_up(first: str, second: str) -> None:
    assert count_words(f"{first} {second}") == count_words(first) + count_words(second)


@given(st.text(alphabet=ODD, max_size=14) | st.text(max_size=30))
def test_counting_on_bytes_counts_what_the_definition_says(text: str) -> None:
    word = rf"[^\W{HAN}{KANA}]+(?:['’.,\-][^\W{HAN}{KANA}]+)*"
    assert count_words(text) == len(re.findall(f"[{HAN}{KANA}]", text)) + len(re.findall(word, text))


@given(st.text(alphabet=ODD, max_size=14) | st.text(max_size=30))
def test_normalising_is_nfkc_and_case_and_spaces(text: str) -> None:
    assert normalise(text) == " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def test_letters_by_writing() -> None:
    found = letters("中文ab，ひらカナ 한국 Привет αβ שלום مرحبا नमस्ते 123！é")
    assert (found.han, found.kana, found.hangul, found.latin) == (2, 4, 2, 3)
    assert (found.cyrillic, found.greek, found.hebrew, found.arabic) == (6, 2, 4, 5)
    assert found.southern > 3
    assert letters("Hello, 42") == letters("")._replace(latin=5)


def test_common_characters_are_simplified_and_traditional() -> None:
    assert set("的是学學们們，。“é") <= common_characters()
    assert not set("鐨浠銆锛") & common_characters(), "what mojibake is made of is not common"


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("hello", "latin"), ("你好 world", "zh"), ("空が青い理由", "ja"), ("한국어", "ko"), ("123 !", "other"),
        ("Привет", "other"),
        ("请把 machine learning 翻译成中文", "zh"),
    ],
)  # fmt: skip
def test_script(text: str, script: str) -> None:
    assert script_of(text) == script


@given(st.text())
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    once = normalise(normalise(text))
    assert normalise(once) == once


def test_what_counts_as_the_same() -> None:
    def key(question: str, answer: str, row: int = 0, **more: object) -> bytes:
        messages = (Message("user", question), Message("assistant", answer, train=more.pop("train", None)))  # type: ignore[arg-type]
        return content_key(Example(messages, Origin("s", row), **more))  # type: ignore[arg-type]

    same = key("Ｈello，  world", "好")
    assert key("hello,\n world ", "好", row=9, meta={"id": 3}) == same
    assert key("hello, world", "坏") != same
    assert key("hello, world", "好", train=0.5) != same
    assert key("hello, world", "好", tools=({"name": "f"},)) != same
    assert content_key(Example((Message("user", "ab"), Message("user", "c")), Origin("s", 0))) != content_key(
        Example((Message("user", "a"), Message("user", "bc")), Origin("s", 0))
    )
