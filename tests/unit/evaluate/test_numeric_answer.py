from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.evaluate.metrics import Observation
from tuneloop.evaluate.metrics.numeric_answer import NumericAnswer
from tuneloop.evaluate.metrics.self_consistency import SelfConsistency
from tuneloop.evaluate.numbers import final_number, is_number, numbers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("48 + 24 = 72 clips.", ["48", "24", "72"]),
        ("$1,234,567.50 or 12,34", ["1234567.50", "12", "34"]),
        ("-5, 3-2, x = -7, −8, ($-9), -$10", ["-5", "3", "2", "-7", "-8", "-9", "-10"]),
        ("１２，３４５．６ 元", ["12345.6"]),
        ("３万元，1.5亿，２万亿", ["30000", "150000000", "2000000000000"]),
        ("3千米 5千克", ["3", "5"]),
        ("50% and 20％", ["50", "20"]),
        ("1e3 2.5E-2 3e", ["1000", "0.025", "3"]),
        ("no number, ½ not either", ["1", "2"]),  # NFKC writes ½ as 1⁄2
        (".5 5. 1.2.3", ["0.5", "5", "1.2", "0.3"]),
        ("", []),
    ],
)
def test_numbers(text: str, expected: list[str]) -> None:
    assert numbers(text) == [Decimal(number) for number in expected]


@pytest.mark.parametrize(
    ("text", "reference", "options", "expected"),
    [
        ("She sold 48/2 = <<48/2=24>>24 clips in May.\n#### 72", "#### 72", {}, 1),
        ("#### 72.0", "#### 72", {}, 1),
        ("#### 1,000", "1000", {}, 1),
        ("The answer is 72 clips.", "#### 72", {}, 1),
        ("72 clips, sold in 2 months", "#### 72", {}, 0),
        ("#### 72 clips in 2 months", "#### 72", {}, 1),
        (r"so \boxed{72} of 80", "72", {}, 1),
        ("72", "#### 72", {"strict": True}, 0),
        ("答案是７２。", "72", {}, 1),
        ("一共３万元", "30,000 元", {}, 1),
        ("50%", "50", {}, 1),
        ("50%", "0.5", {"percent": "share"}, 1),
        ("3.14", "3.14159", {"tolerance": 0.01}, 1),
        ("3.2", "3.14159", {"tolerance": 0.01}, 0),
        ("I do not know", "#### 72", {}, 0),
        ("", "72", {}, 0),
        ("#### none, but 72", "72", {}, 1),
        ("1e999", "1e998", {"tolerance": 0.5}, 0),
    ],
)
def test_numeric_answer(text: str, reference: str, options: dict[str, object], expected: int) -> None:
    assert NumericAnswer.model_validate(options).score(Observation(reference, text=text)).value == expected


def test_a_reference_without_a_number_is_unscored() -> None:
    assert NumericAnswer().score(Observation("many", text="3")).why == "the reference has no number"


@given(st.integers(-(10**12), 10**12), st.sampled_from(["{:,}", "{}", "#### {:,}", "${:,}.", "共{}个", "**{}**"]))
def test_any_integer_is_read_back(number: int, form: str) -> None:
    assert final_number(form.format(number), "####") == number


@given(st.text(max_size=60))
def test_any_text_is_read(text: str) -> None:
    final_number(text, "####")
    is_number(text)


def test_is_number() -> None:
    assert all(map(is_number, ["72", "-1,000.5", "５０%", "3万", "$5", "72."]))
    assert not any(map(is_number, ["72 clips", "about 72", "", "12个", "a"]))


@pytest.mark.parametrize(
    ("samples", "reference", "labels", "expected"),
    [
        (("It is 5", "#### 5.0", "7"), "5", (), 1),
        (("7", "7", "5"), "#### 5", (), 0),
        (("正面", "是正面的", "负面"), "正面", ("正面", "负面"), 1),
        (("positive and negative", "none", "negative"), "negative", ("positive", "negative"), 1),
        (("Paris", " paris ", "London"), "Paris", (), 1),
        (("Paris", "London"), "Paris", (), 1),  # a tie: the first drawn
        (("London", "Paris"), "Paris", (), 0),
        (("", ""), "Paris", (), 0),
        (("no", "idea"), "5", (), 0),
    ],
)
def test_self_consistency(samples: tuple[str, ...], reference: str, labels: tuple[str, ...], expected: int) -> None:
    row = Observation(reference, samples=samples, labels=labels)
    assert SelfConsistency().score(row).value == expected


def test_agreement_of_samples_stands_in_the_details() -> None:
    metric = SelfConsistency(n=4)
    rows = [Observation("5", samples=("5", "5", "5", "6")), Observation("5", samples=("6", "6", "5", "7"))]
    rows += [Observation(None, samples=("5",) * 4), Observation("5")]
    scores = metric.score_all(rows, lambda count: None)
    assert [score.value for score in scores] == [1, 0, None, None]
    details = metric.details(rows, scores)
    assert details is not None and (details["value"], details["n"]) == (0.625, 2)
    assert details["by"] == [{"share": 0.5, "n": 1, "right": 0}, {"share": 0.75, "n": 1, "right": 1}]
    assert metric.details(rows[2:], scores[2:]) is None
    assert metric.sampling is not None and metric.sampling.n == 4
