"""Many texts at one glance give what each text by itself gives."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.core.conversation import Example, Message, Origin, ToolCall
from tuneloop.data.characters import count_words, scripts_of
from tuneloop.data.config import DataConfig
from tuneloop.data.steps import RowStep, Step
from tuneloop.texts import words

ODD = "aB1_'’.,- \n，。　中文的〇②Ａéл×ª\u0301\u200bァん㐀\U00020001😀ß\ud800한"
PIECES = [
    *("你好，世界", "The answer is 42.", " ", "\n", "a &amp; b", "<p>x</p>", "\x07", "\u200b", "Ã¤Ã¶", "浣犲ソ"),
    *("锟斤拷", "\ufffd", "\u3000", "电话13812345678", "１３８１２３４５６７８", "li@firma.cn", "li＠firma.cn"),
    *("https://a:b9x@host.org/", "京A12345", "车牌京A·1B2C3", "AKIAABCDEFGHIJKLMNO1", "北京路12号", "张先生"),
    *("ghp_abcdefghijklmnopqrstuvwxyz0123456789", "-----BEGIN PRIVATE KEY-----\nMIIB\n", "2001:db8:1::1"),
    *("护照号码E12345678", "出生日期：1990年1月2日", "4111 1111 1111 1111", "密码是hunter2x", "Dear Ann Lee,"),
]


@given(st.lists(st.text(st.sampled_from(ODD), max_size=12), max_size=8))
def test_words_are_counted_as_one_by_one(texts: list[str]) -> None:
    assert count_words(texts).tolist() == [words.count_words(text) for text in texts]


@given(st.lists(st.text(st.sampled_from(f"{ODD}éЖאกㄅ½ｱ"), max_size=12), max_size=8))
def test_the_writing_is_found_as_one_by_one(texts: list[str]) -> None:
    assert scripts_of(texts) == [words.script_of(text) for text in texts]


@cache  # for all examples of a choice, as a run has one for all rows
def step_of(choice: str) -> Step:
    """The step of a recipe's JSON."""
    return DataConfig.model_validate({"sources": [{"path": "x"}], "steps": [json.loads(choice)]}).steps[0]


@pytest.mark.parametrize(
    "choice",
    [
        "repair", {"repair": {"lost": "keep", "html": False}}, {"length": {"min_words": 3, "max_words": 9}}, "length",
        {"length": {"of": "prompt", "min_words": 4}}, {"length": {"min_characters": 9}},
        {"length": {"min_words": 0, "max_characters": 30}}, "pii", {"pii": {"strength": "weak"}},
        {"pii": {"action": "drop"}}, "language",
    ],
)  # fmt: skip
@given(data=st.data())
def test_a_step_decides_on_many_rows_as_on_each(choice: Any, data: st.DataObject) -> None:
    step = step_of(json.dumps(choice))
    assert isinstance(step, RowStep)
    text = st.lists(st.sampled_from(PIECES), max_size=4).map("".join)
    calls = st.sampled_from([(), (ToolCall("f", {"x": "a\x07b 13812345678"}),)])
    schemas = st.sampled_from([(), ({"d": "\x07"},)])
    drawn = data.draw(st.lists(st.tuples(text, text, st.none() | text, calls, schemas, text)))
    rows = [
        Example(
            (Message("user", asked), Message("assistant", said, reasoning=thought, tool_calls=called)),
            Origin("x", number), tools, {"note": note},
        )
        for number, (asked, said, thought, called, tools, note) in enumerate(drawn)
    ]  # fmt: skip
    assert list(step.look_all(rows)) == [step.look(row) for row in rows]
