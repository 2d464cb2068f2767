"""The split is stable, keeps equal prompts together and leaves nothing in two places."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tuneloop.core.conversation import Example, Message, Origin
from tuneloop.data.config import SplitConfig
from tuneloop.data.split import Splits, split


def example(prompt: str, answer: str = "a", row: int = 0) -> Example:
    return Example((Message("user", prompt), Message("assistant", answer)), Origin("s", row))


def where(splits: Splits) -> dict[str, str]:
    return {one.id: name for name in ("train", "val", "test") for one in getattr(splits, name)}


@given(st.lists(st.text(max_size=8), unique=True, max_size=40), st.lists(st.text(max_size=8), max_size=40))
def test_adding_rows_moves_no_row(first: list[str], more: list[str]) -> None:
    before = where(split([example(prompt) for prompt in first], SplitConfig()))
    after = where(split([example(prompt) for prompt in [*more, *first]], SplitConfig()))
    assert before.items() <= after.items()


def test_the_same_question_never_straddles() -> None:
    asked = [f"Question {number}" for number in range(200)]
    variants = [example(text, answer) for text in asked for answer in ("a", "b")]
    variants += [example(f"  {text.upper()}\u3000") for text in asked]
    splits = split(variants, SplitConfig(train=0.4, val=0.3, test=0.3))
    normal = {
        name: {one.prompt[0].content.strip().lower() for one in getattr(splits, name)}
        for name in ("train", "val", "test")
    }
    assert not normal["train"] & (normal["val"] | normal["test"]) and not normal["val"] & normal["test"]
    assert len(splits.train) + len(splits.val) + len(splits.test) == len(variants)


def test_shares_hold_on_average_and_a_documented_hash_decides() -> None:
    splits = split([example(f"问题 {number}") for number in range(4000)], SplitConfig())
    assert [round(len(part) / 4000, 1) for part in (splits.train, splits.val, splits.test)] == [0.8, 0.1, 0.1]
    larger = split([example(f"问题 {number}") for number in range(4000)], SplitConfig(train=0.7, val=0.2, test=0.1))
    assert larger.test == splits.test, "the test set does not depend on the share of val"


def test_documents_without_a_prompt_are_spread() -> None:
    documents = [Example((Message("text", f"Doc {number}", train=1.0),), Origin("s", number)) for number in range(300)]
    splits = split(documents, SplitConfig())
    assert splits.train and splits.val and splits.test


def test_own_test_rows_leave_the_training_rows() -> None:
    rows = [example(f"q{number}", row=number) for number in range(50)]
    test = [example("Q7 ", "A"), example("new")]
    splits = split(rows, SplitConfig(), own_test=test)
    assert splits.test == test
    assert [(drop.step, drop.reason, drop.origin.row) for drop in splits.drops] == [("split", "also in test", 7)]
    assert splits.drops[0].evidence["same"] == test[0].id
    assert len(splits.train) + len(splits.val) == 49 and splits.val


def test_own_val_and_test() -> None:
    rows = [example(f"q{number}") for number in range(20)]
    splits = split(rows, SplitConfig(), own_val=[example("q1"), example("q2"), example("v")], own_test=[example("q2")])
    assert len(splits.train) == 18
    assert [one.prompt[0].content for one in splits.val] == ["q1", "v"], "test keeps what val also has"
    assert sorted(drop.reason for drop in splits.drops) == ["also in test", "also in test", "also in val"]


@pytest.mark.parametrize(
    "shares", [{"train": 0.9}, {"train": 0.0, "val": 0.5, "test": 0.5}, {"train": 1.1, "val": -0.1}]
)
def test_impossible_shares(shares: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        SplitConfig(**shares)
