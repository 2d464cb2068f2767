from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.pages.markdown import code, plain, table
from tuneloop.pages.numbers import count, number, percent, probability, share


@pytest.mark.parametrize(
    ("value", "signed", "expected"),
    [(None, False, "–"), (0.5, False, "0.500"), (0.5, True, "+0.500"), (-0.25, True, "−0.250"), (0.0, True, "0.000"),
     (-0.0001, True, "0.000"), (12.345, False, "12.3"), (31234.0, False, "3.12e+04")],
)  # fmt: skip
def test_number(value: float | None, signed: bool, expected: str) -> None:
    assert number(value, signed) == expected


def test_probability_count_and_percent() -> None:
    assert probability(0.00001) == "< 0.001" and probability(0.25) == "0.250" and probability(None) == "–"
    assert count(12345) == "12,345" and count(None) == "–" and percent(0.995) == "99.5 %"


@pytest.mark.parametrize(
    ("part", "whole", "expected"),
    [(0, 7, "0 %"), (7, 7, "100 %"), (1, 3, "33 %"), (1, 30, "3.3 %"), (1, 100_000, "< 0.1 %"), (5, 0, "–"),
     (99_999, 100_000, "> 99.9 %"), (995, 1000, "99.5 %")],
)  # fmt: skip
def test_share(part: float, whole: float, expected: str) -> None:
    assert share(part, whole) == expected


@given(st.integers(1, 10**7), st.integers(1, 10**7))
def test_what_is_neither_nothing_nor_all_never_reads_so(part: int, rest: int) -> None:
    assert share(part, part + rest) not in ("0 %", "0.0 %", "100 %", "100.0 %")


def test_markdown_shows_any_text_as_it_is() -> None:
    assert plain("a|b\n<i> `x` _y_") == "a\\|b \\<i\\> \\`x\\` \\_y\\_"
    assert code("a `b` c") == "`` a `b` c ``"
    lines = table(["name", "n"], [["a|b", "1"], ["多行\n文本", "2"]], [False, True])
    assert lines[1] == "|---|---:|" and lines[3] == "| 多行 文本 | 2 |"
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 3 for line in lines)
