"""Many texts and rows at once have the forms and keys that each has by itself."""

from __future__ import annotations

import sys
import unicodedata

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.core.conversation import Example, Message, Origin, ToolCall
from tuneloop.data import forms
from tuneloop.data.stance import are_cued, core, marks
from tuneloop.texts import words

ODD = (
    "aB1 \n\t\x00\x1c\x85\xa0\u2003\u3000，：…（)中文〇Ａ１ﬁ½ßİſŉ②ªǅЖΣς"
    "\u0345\u0301\u0338e;=か\u3099ｶﾞ\u1100\u1161\u11a8한"
    "\u0dd9\u0dcf\u09c7\u09be\u200b\ufeff\ufffd\ufffe\ud800\U00020001\U0001d54f\U0001f600\ufe0f\U000e0041豈\u2fd5"
)
texts = st.text(st.sampled_from(ODD), max_size=8) | st.text(max_size=8)
"""Characters that become several, none or a space, join their neighbours, or stand outside the table."""
turns = st.builds(
    Message,
    role=st.sampled_from(["system", "user", "assistant", "tool", "text"]),
    content=texts,
    reasoning=st.none() | texts,
    tool_calls=st.sampled_from([(), (), (ToolCall("f", {"x": 1}),)]),
    train=st.sampled_from([None, None, 0.0, 0.5]),
)
conversations = st.lists(turns, min_size=1, max_size=3).map(tuple)


@given(st.lists(texts, max_size=60))
def test_texts_are_normalised_as_one_by_one(some: list[str]) -> None:
    words.remember([], [])
    assert forms.normalise(some) == [" ".join(unicodedata.normalize("NFKC", one).casefold().split()) for one in some]
    assert forms.normalise(some) == [words.normalise(one) for one in some], "what is remembered is the same"


def test_every_character_between_others_is_normalised_as_by_itself() -> None:
    around = [
        f"x{chr(code)}ａ" for code in range(sys.maxunicode + 1) if code < 0x3500 or code % 7 == 0 or code > 0xF800
    ]
    assert forms.normalise(around) == [
        " ".join(unicodedata.normalize("NFKC", one).casefold().split()) for one in around
    ]


def test_no_character_of_the_table_joins_the_one_before_it() -> None:
    pairs = [unicodedata.decomposition(chr(code)).split() for code in range(sys.maxunicode + 1)]
    second = {int(pair[1], 16) for pair in pairs if len(pair) == 2 and pair[0][0] != "<"}
    second |= {*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)}  # Hangul, which is composed by rule
    known = forms._table()
    alone = np.flatnonzero(known != forms._NONE).tolist()
    assert len(alone) > 40_000
    wide = {code: unicodedata.normalize("NFKC", chr(code)) for code in alone}
    assert not [code for code, one in wide.items() if ord(one) in second or unicodedata.combining(one)]


@given(st.lists(st.tuples(conversations, st.booleans()), max_size=30))
def test_keys_are_those_of_each_row(some: list[tuple[tuple[Message, ...], bool]]) -> None:
    rows = [
        Example(said, Origin("s", 0), ({"name": "f"},) if more else (), {}, said[:1] if more else ())
        for said, more in some
    ]
    assert forms.content_keys(rows) == [words.content_key(row) for row in rows]
    prompts = [row.messages[:-1] or row.messages for row in rows]
    assert forms.prompt_keys(prompts) == [words.key_of_turns(one) for one in prompts]


@given(st.lists(st.text(st.sampled_from("an0不1是 答案结果r等于#没有en't好，"), max_size=12) | texts, max_size=12))
def test_marks_differ_only_where_what_is_said_does(some: list[str]) -> None:
    said = forms.normalise(some)
    cores = [core(Example((Message("assistant", one),), Origin("s", 0))) for one in some]
    of_core: dict[bytes, int] = {}
    assert all(of_core.setdefault(one, mark) == mark for one, mark in zip(cores, marks(said), strict=True))
    cues = ("####", "boxed{", "answer", "答案", "结果", "結果", "等于", "等於")
    assert are_cued(said) == [any(cue in one for cue in cues) for one in said]


def test_marks_tell_most_answers_apart() -> None:
    said = [f"the capital of {'abcdfghijk'[one % 10]}{one // 10 * 'x'} is far" for one in range(200)]
    assert len(set(marks(said))) == 200
