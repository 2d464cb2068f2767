"""Exact duplicates: what counts as the same, which row stays, and what is said where labels differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stepping import decide, run

from tuneloop.core.conversation import Example, Message, Origin
from tuneloop.data.steps import STEPS
from tuneloop.data.steps.exact_duplicates import REASON, ExactDuplicates
from tuneloop.texts.words import content_key


def example(prompt: str, answer: str, row: int = 0, **meta: Any) -> Example:
    return Example((Message("user", prompt), Message("assistant", answer)), Origin("s", row), meta=meta)


def test_the_first_stays_and_is_named() -> None:
    rows = [
        example("Hi", "好", 0, id=1),
        example("hi ", "好", 1, id=2),
        example("hi", "坏", 2),
        example("ＨＩ", "好", 3),
    ]
    verdict = decide(ExactDuplicates(), rows)
    assert sorted(verdict.rejected) == [1, 3]
    assert verdict.rejected[3].reason == REASON
    assert verdict.rejected[3].evidence == {"kept": rows[0].id, "origin": {"source": "s", "row": 0}}
    assert not verdict.findings


def test_what_is_trained_on_is_compared() -> None:
    def weighted(weight: float | None, row: int) -> Example:
        return Example((Message("user", "q"), Message("assistant", "a", train=weight)), Origin("s", row))

    assert not decide(ExactDuplicates(), [weighted(None, 0), weighted(0.5, 1)]).rejected


def test_other_labels_are_told() -> None:
    rows = [example("q", "a", 0, label="x"), example("q", "a", 1, label="x"), example("q", "a", 2, label="y"),
            example("q", "a", 3)]  # fmt: skip
    verdict = decide(ExactDuplicates(), rows)
    assert sorted(verdict.rejected) == [1, 2, 3]
    (finding,) = verdict.findings
    assert (finding["level"], finding["code"], finding["count"]) == ("WARN", "labels_of_duplicates", 1)
    assert finding["examples"][0]["dropped"]["origin"]["row"] == 2


@given(st.lists(st.tuples(st.sampled_from(["a", "A ", "b", "是"]), st.sampled_from(["x", "y"])), max_size=12),
       st.integers(1, 4))  # fmt: skip
def test_as_a_dictionary_would(texts: list[tuple[str, str]], shards: int) -> None:
    rows = [example(prompt, answer, row) for row, (prompt, answer) in enumerate(texts)]
    first: dict[bytes, int] = {}
    wanted = {row: kept for row, one in enumerate(rows) if (kept := first.setdefault(content_key(one), row)) != row}
    rejected = decide(ExactDuplicates(), rows, shards).rejected
    assert {row: rejection.evidence["origin"]["row"] for row, rejection in rejected.items()} == wanted


@pytest.mark.parametrize("before", [[], ["repair"]])
def test_all_planted_ones_are_found(shared: Path, before: list[str]) -> None:
    truth = [json.loads(line) for line in (shared / "planted/planted4k.jsonl").read_bytes().splitlines()]
    rows = [example(one["instruction"], one["output"], row) for row, one in enumerate(truth)]
    _, gone = run([*map(STEPS.make, before), ExactDuplicates()], rows)
    left = {one.origin.row for one, rejection in gone if rejection.reason == REASON}
    assert {row for row, one in enumerate(truth) if one["kind"] == "exact"} <= left
    for row in left:  # nothing but copies: planted as such, or equal texts that chance planted twice
        assert truth[row]["kind"] in ("exact", "short", "near") or before
