"""Words, sameness and writing, in Chinese as in English."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.core.conversation import Example, Message, Origin
from tuneloop.data.words import content_key, count_words, normalise, script_of


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
