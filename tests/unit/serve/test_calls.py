"""Tool calls in an answer that comes piece by piece: the same as in the whole, and never told as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.serve.calls import MARKS, CallReader, split

ANSWERS = [
    'Let me see.\n<tool_call>\n{"name": "a", "arguments": {"x": 1}}\n</tool_call>',
    '<tool_call>{"name": "a", "arguments": {}}</tool_call><tool_call>{"name": "b", "arguments": {}}</tool_call>',
    '{"name": "a", "parameters": {"x": [1, {"y": 2}]}}',
    ' [{"name": "a", "arguments": {}}]',
    'Sure [TOOL_CALLS][{"name": "a", "arguments": {}}]',
    "<function=a><parameter=x>\n1\n</parameter></function>",
]
PLAIN = [
    "",
    "no call",
    "a < b and c <tool",
    "{not json",
    "[1, 2",
    "```python\nprint(1)\n```",
    "x <tool_call> broken",
    "<",
]


def in_pieces(text: str, cuts: list[int]) -> tuple[str, list[str], str]:
    reader, told, last = CallReader(), "", 0
    for cut in [*sorted({cut % (len(text) + 1) for cut in cuts}), len(text)]:
        told += reader.take(text[last:cut])
        last = cut
    rest, calls = reader.end()
    return told, [call.name for call in calls], told + rest


@pytest.mark.parametrize("text", ANSWERS)
@given(cuts=st.lists(st.integers(0, 200)))
def test_calls_are_found_however_they_are_cut_and_not_told(text: str, cuts: list[int]) -> None:
    told, calls, whole = in_pieces(text, cuts)
    assert calls and not any(mark in whole for mark in MARKS) and '"name"' not in told
    assert (whole, calls) == (split(text)[0], [call.name for call in split(text)[1]])


@pytest.mark.parametrize("text", PLAIN)
@given(cuts=st.lists(st.integers(0, 200)))
def test_a_text_without_calls_is_told_letter_by_letter(text: str, cuts: list[int]) -> None:
    _, calls, whole = in_pieces(text, cuts)
    assert (whole, calls) == (text, [])


def test_ordinary_text_is_not_held_back() -> None:
    reader = CallReader()
    assert [reader.take(text) for text in ("Hello", " there", " a <", " b", "x <tool")] == [
        "Hello", " there", " a ", "< b", "x ",
    ]  # fmt: skip
