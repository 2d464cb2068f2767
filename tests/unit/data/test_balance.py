"""Balance: sizes, which rows are chosen, and that the choice is stable."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from stepping import decide

from tuneloop.core.conversation import Example, Message, Origin
from tuneloop.data.steps import STEPS, Verdict
from tuneloop.data.steps.balance import Balance


def example(text: str, row: int, **meta: Any) -> Example:
    return Example((Message("user", f"question {row}"), Message("assistant", text)), Origin("s", row), meta=meta)


def labelled(**sizes: int) -> list[Example]:
    labels = [label for label, size in sizes.items() for _ in range(size)]
    return [example("answer", row, label=label) for row, label in enumerate(labels)]


def sizes(rows: list[Example], verdict: Verdict) -> dict[str, int]:
    """How often each label comes in train."""
    found: Counter[str] = Counter()
    for row, one in enumerate(rows):
        if row not in verdict.rejected:
            found[one.meta.get("label", "")] += verdict.repeats.get(row, 1)
    return dict(found)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, {"a": 3, "b": 8, "c": 8}),
        ({"to": "smallest"}, {"a": 3, "b": 3, "c": 3}),
        ({"to": 5}, {"a": 3, "b": 5, "c": 5}),
        ({"method": "oversample"}, {"a": 8, "b": 8, "c": 20}),
        ({"method": "oversample", "to": "largest"}, {"a": 20, "b": 20, "c": 20}),
        ({"method": "oversample", "to": "largest", "max_repeats": 2}, {"a": 6, "b": 16, "c": 20}),
        ({"method": "both"}, {"a": 8, "b": 8, "c": 8}),
        ({"method": "both", "to": 10}, {"a": 10, "b": 10, "c": 10}),
    ],
)
def test_sizes(options: dict[str, Any], wanted: dict[str, int]) -> None:
    rows = labelled(a=3, b=8, c=20)
    verdict = decide(Balance(**options), rows)
    assert sizes(rows, verdict) == wanted
    assert max(verdict.repeats.values(), default=0) - min(verdict.repeats.values(), default=0) <= 5
    for rejection in verdict.rejected.values():
        assert rejection.reason == "more rows of this label than balance keeps"
        assert rejection.evidence["rows"] - rejection.evidence["kept"] > 0
    assert next(one["code"] for one in verdict.findings) == "balanced"


def test_repeats_are_spread_evenly() -> None:
    rows = labelled(a=3, b=8)
    repeats = decide(Balance(method="oversample", to="largest"), rows).repeats
    assert sorted(repeats.values()) == [2, 3, 3] and set(repeats) == {0, 1, 2}


def test_too_few_rows_to_repeat_are_told() -> None:
    verdict = decide(Balance(method="oversample", to="largest", max_repeats=2), labelled(a=1, b=9))
    assert [(one["code"], one["level"]) for one in verdict.findings] == [
        ("balanced", "INFO"), ("too_few_to_balance", "WARN"),
    ]  # fmt: skip


def test_language_is_the_column_or_the_writing() -> None:
    texts = ["因为阳光会被空气散射", "Because light is scattered", "Weil Licht gestreut wird"]
    rows = [Example((Message("user", text), Message("assistant", text)), Origin("s", row)) for row, text in
            enumerate(texts)]  # fmt: skip
    assert len(decide(Balance(by="language", to=1), rows).rejected) == 1
    rows[2] = Example(rows[2].messages, rows[2].origin, meta={"language": "de"})
    verdict = decide(Balance(by="language", to=1), rows)
    assert not verdict.rejected, "rows whose language the step `language` did not find are no group beside languages"
    assert verdict.findings[-1]["code"] == "without_language"


def test_length_counts_chinese_by_character() -> None:
    rows = [example("好" * 60, 0), example("word " * 60, 1), example("好", 2), example("word " * 400, 3)]
    verdict = decide(Balance(by="length", to=1), rows)
    assert set(verdict.rejected) < {0, 1} and len(verdict.rejected) == 1
    groups = {one["group"]: one["before"] for one in verdict.findings[0]["groups"]}
    assert groups == {"short": 1, "medium": 2, "long": 1}


def test_rows_without_a_label_stay() -> None:
    rows = [*labelled(a=1, b=5), *(example("answer", row) for row in range(6, 10))]
    verdict = decide(Balance(), rows)
    assert sizes(rows, verdict) == {"a": 1, "b": 1, "": 4}
    assert verdict.findings[-1]["code"] == "without_label"
    (nothing,) = decide(Balance(), rows[6:]).findings
    assert (nothing["level"], nothing["code"]) == ("WARN", "not_balanced")
    assert decide(Balance(), []) == Verdict()


@settings(max_examples=40)
@given(st.integers(1, 12), st.integers(0, 6), st.integers(1, 4))
def test_the_choice_is_stable_when_rows_come_and_in_any_shards(count: int, more: int, shards: int) -> None:
    step = Balance(to=4)
    rows = labelled(a=count)
    kept = {row for row in range(count) if row not in decide(step, rows, shards).rejected}
    grown = decide(step, labelled(a=count + more), shards + 1)
    kept_then = {row for row in range(count + more) if row not in grown.rejected}
    assert len(kept) == min(count, 4)
    assert len(kept - kept_then) <= more, "a new row takes at most one place"
    assert {row for row in kept_then if row < count} <= kept


def test_the_choice_does_not_follow_the_order() -> None:
    rejected = decide(Balance(to=50), labelled(a=100)).rejected
    assert 10 < sum(row < 50 for row in rejected) < 40


@pytest.mark.parametrize(
    "options", [{"by": "mood"}, {"to": 0}, {"to": "largest"}, {"method": "oversample", "to": "smallest"},
                {"lengths": [200, 50]}, {"to": "mean"}]
)  # fmt: skip
def test_options_that_cannot_be_meant(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        STEPS.make({"balance": options})
