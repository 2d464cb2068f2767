from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tuneloop.texts.difference import LONGEST, differences


def test_english_by_words_chinese_by_characters() -> None:
    assert differences("The cat sat down.", "The dog sat down.") == [
        ("same", "The "), ("first", "cat"), ("second", "dog"), ("same", " sat down.")
    ]  # fmt: skip
    assert differences("法国首都是里昂。", "法国首都是巴黎。") == [
        ("same", "法国首都是"), ("first", "里昂"), ("second", "巴黎"), ("same", "。")
    ]  # fmt: skip
    assert differences("one two", "three four") == [("first", "one two"), ("second", "three four")]
    assert differences("", "x") == [("second", "x")] and differences("", "") == []


def test_long_texts_end() -> None:
    a, b = "word " * LONGEST, "word " * LONGEST + "more"
    assert differences(a, a) == [("same", a)]
    assert differences(a, b)[-1] == ("second", "word " * (LONGEST // 2) + "more")


@given(st.text(max_size=60), st.text(max_size=60))
def test_both_texts_can_be_read_out_of_it(first: str, second: str) -> None:
    runs = differences(first, second)
    assert "".join(text for kind, text in runs if kind != "second") == first
    assert "".join(text for kind, text in runs if kind != "first") == second
    assert all(a[0] != b[0] for a, b in pairwise(runs))
