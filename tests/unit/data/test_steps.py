"""What the step `length` keeps and rejects, in words, characters and tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from stepping import run

from tuneloop.core.conversation import Example, Message, Origin, ToolCall
from tuneloop.core.errors import DataError
from tuneloop.data.steps import STEPS


def example(prompt: str, answer: str, row: int = 0, **more: Any) -> Example:
    return Example((Message("user", prompt), Message("assistant", answer)), Origin("s", row), **more)


def kept(step: Any, *examples: Example) -> list[int]:
    return [one.origin.row for one in run([STEPS.make(step)], examples)[0]]


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


def test_length_says_how_long_the_row_is() -> None:
    _, [(_, rejection)] = run([STEPS.make({"length": {"max_words": 3}})], [example("你好吗", "hello")])
    assert rejection.reason == "the conversation has more than 3 words"
    assert rejection.evidence == {"words": 4}


def test_length_in_tokens_of_a_model(tokenizer_folder: Path) -> None:
    short, long = example("Hi", "Paris", 0), example("Hi", "Paris. " * 300, 1)
    options = {"of": "answer", "max_tokens": 512, "tokenizer": str(tokenizer_folder)}
    _, [(gone, rejection)] = run([STEPS.make({"length": options})], [short, long])
    assert gone is long
    assert rejection.evidence["tokens"] > 600, "a tokenizer that cuts at the model's length would hide long rows"


def test_length_without_the_tokenizer_that_it_needs(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="need `tokenizer`"):
        STEPS.make({"length": {"max_tokens": 5}})
    with pytest.raises(ValidationError, match="only used with"):
        STEPS.make({"length": {"tokenizer": str(tmp_path)}})
    step = STEPS.make({"length": {"max_tokens": 5, "tokenizer": str(tmp_path)}})
    with pytest.raises(DataError, match=r"no tokenizer\.json"):
        run([step], [example("a", "b")])


@pytest.mark.parametrize("unit", ["words", "characters", "tokens"])
def test_length_limits_in_the_wrong_order(unit: str) -> None:
    with pytest.raises(ValidationError, match="no row could pass"):
        STEPS.make({"length": {f"min_{unit}": 5, f"max_{unit}": 4}})


@pytest.mark.parametrize(
    "step",
    [
        {"length": {"min_words": 0}},
        {"noise": dict.fromkeys(("empty", "refusals", "disclaimers", "boilerplate", "cut_off"), False)
                  | {"max_repetition": 1}},
        {"repair": dict.fromkeys(("mojibake", "control", "html", "invisible", "whitespace"), False) | {"lost": "keep"}},
    ],
)  # fmt: skip
def test_a_step_that_would_do_nothing_is_refused(step: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="leave the step out"):
        STEPS.make(step)
