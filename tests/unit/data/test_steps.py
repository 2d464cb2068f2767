"""What each step keeps and rejects."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tuneloop.core.conversation import Example, Message, Origin, ToolCall
from tuneloop.data.steps import STEPS


def example(prompt: str, answer: str, row: int = 0, **more: Any) -> Example:
    return Example((Message("user", prompt), Message("assistant", answer)), Origin("s", row), **more)


def kept(step: Any, *examples: Example) -> list[int]:
    sieved = STEPS.make(step).apply(examples)
    assert len(sieved.kept) + len(sieved.rejected) == len(examples)
    return [one.origin.row for one in sieved.kept]


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({}, [0, 1, 2]),
        ({"min_words": 7}, [0]),
        ({"max_words": 6}, [1, 2]),
        ({"of": "answer", "min_words": 2}, [0, 1]),
        ({"of": "prompt", "max_words": 4}, [1, 2]),
        ({"min_characters": 12}, [1]),
        ({"max_characters": 4}, [2]),
    ],
)
def test_length_counts_chinese_by_character(options: dict[str, Any], rows: list[int]) -> None:
    found = kept({"length": {"min_words": 1, **options}},
                 example("天空为何蓝", "散射。光", 0), example("Why is it", "because of scattering", 1),
                 example("hm", "。x", 2), example("?", "。", 3))  # fmt: skip
    assert found == [row for row in rows if row != 3]


def test_length_of_an_answer_that_is_a_call() -> None:
    call = Message("assistant", "", tool_calls=(ToolCall("find", {"city": "北京"}),))
    assert kept(
        {"length": {"of": "answer", "min_words": 3}}, Example((Message("user", "?"), call), Origin("s", 5))
    ) == [5]


def test_length_limits_in_the_wrong_order() -> None:
    with pytest.raises(ValidationError, match="no row could pass"):
        STEPS.make({"length": {"min_characters": 5, "max_characters": 4}})


def test_exact_duplicates_keep_the_first_and_name_it() -> None:
    rows = [example("Hi", "好", 0, meta={"id": 1}), example("hi ", "好", 1, meta={"id": 2}), example("hi", "坏", 2)]
    sieved = STEPS.make("exact_duplicates").apply(rows)
    assert [one.origin.row for one in sieved.kept] == [0, 2]
    (rejected,) = sieved.rejected
    assert rejected.evidence == {"kept": rows[0].id, "origin": {"source": "s", "row": 0}}
