"""The leak proof: it breaks where anything that is the same stands in two splits, and only there."""

from __future__ import annotations

import random

import pytest

from tests.unit.data.audit_facts import card_of, codes, facts, pair, pairs
from tuneloop.core.conversation import Example, Message, Origin
from tuneloop.data.audit import to_html, to_markdown
from tuneloop.data.audit.card import card as make

random_text = random.Random(0)
ZH, EN = (
    "的一是了我不人在他有这个上们来到时大地为子中你说生国年着就那和要她出也得里后自以会",
    "abcdefghijklmnop qrstuv wxyz ",
)


def text(letters: str, size: int) -> str:
    return "".join(random_text.choices(letters, k=size))


@pytest.mark.parametrize("letters", [ZH, EN])
@pytest.mark.parametrize("prompts", [True, False])
def test_an_equal_prompt_in_two_splits_is_an_error(letters: str, prompts: bool) -> None:
    questions = [text(letters, 40) for _ in range(30)]
    rows = pairs([(question, "a") for question in questions])
    splits = ["train"] * 20 + ["val"] * 5 + ["test"] * 5
    whole = card_of(rows, splits=splits, prompts=prompts)
    assert whole["duplicates"]["prompts"] == {
        "checked": 30, "whole": True, "straddling": 0, "leaked": 0, "examples": [], "rows": 30,
    }  # fmt: skip
    assert "no prompt stands in more than one split (30 different prompts of all rows)" in to_markdown(whole)
    leaked = [*rows, pair(questions[0].upper(), "other", 99)]
    broken = card_of(leaked, splits=[*splits, "test"], prompts=prompts)
    (found,) = [one for one in broken["findings"] if one["code"] == "leak_prompt"]
    assert found["level"] == "ERROR" and found["count"] == 1
    assert {(one["split"], one["row"]) for one in found["examples"]} == {("train", 0), ("test", 99)}
    assert "✗ 1 prompt stands in more than one split" in to_markdown(broken)


def test_a_cluster_in_two_splits_is_an_error() -> None:
    rows = pairs([(text(EN, 40), "a") for _ in range(10)])
    clusters = [1, 1, 2, 3, 3, None, None, 4, 5, 6]
    splits = ["train", "train", "val", "train", "test", "train", "test", "val", "train", "test"]
    card = card_of(rows, splits=splits, clusters=clusters)
    assert card["duplicates"]["clusters"]["checked"] == 2 and card["duplicates"]["clusters"]["straddling"] == 1
    assert codes(card)["leak_cluster"] == "ERROR"
    whole = card_of(rows, splits=[*splits[:4], "train", *splits[5:]], clusters=clusters)
    assert "leak_cluster" not in codes(whole) and "✓ no group of rows that belong together" in to_markdown(whole)


@pytest.mark.parametrize("letters", [ZH, EN])
@pytest.mark.parametrize(("leaks", "level"), [(2, "WARN"), (10, "ERROR")])
def test_near_duplicates_that_no_step_saw(letters: str, leaks: int, level: str) -> None:
    train = [text(letters, 60) for _ in range(120)]
    test = [f"{question}x" for question in train[:leaks]] + [text(letters, 60) for _ in range(100 - leaks)]
    rows = pairs([(question, "a") for question in [*train, *test]])
    card = card_of(rows, splits=["train"] * len(train) + ["test"] * len(test))
    assert codes(card)["near_leak_test"] == level
    near = card["duplicates"]["near"]
    assert near["splits"]["test"] == {"rows": 100, "leaked": leaks} and near["examples"][0]["similarity"] > 0.9
    assert f"✗ {leaks} test prompts have a near-duplicate in train" in to_markdown(card)


def test_system_messages_that_differ_do_not_hide_a_question() -> None:
    def asked(row: int, system: str, question: str) -> Example:
        talk = Message("system", system), Message("user", question), Message("assistant", "a")
        return Example(talk, Origin("a.jsonl", row))

    question = text(ZH, 30)
    card = card_of([asked(0, "今天是周一", question), asked(1, "今天是周二", question)], splits=["train", "test"])
    assert card["duplicates"]["near"]["splits"]["test"]["leaked"] == 1
    others = [asked(row, "你是一个有帮助的助手。" * 9, text(ZH, 30)) for row in range(2)]
    assert not card_of(others, splits=["train", "test"])["duplicates"]["near"]["splits"]["test"]["leaked"]


def test_documents_are_compared_as_they_are() -> None:
    whole = text(ZH, 200)
    rows = [Example((Message("text", one, train=1.0),), Origin("d.txt", row)) for row, one in enumerate((whole, whole))]
    assert codes(card_of(rows, splits=["train", "test"]))["leak_prompt"] == "ERROR"


def test_a_sample_says_that_it_is_one() -> None:
    rows = pairs([(text(EN, 40), "a") for _ in range(20)])
    splits = ["train"] * 15 + ["test"] * 5
    card = make(facts(rows, splits=splits, sample=[("train", row) for row in rows[:5]]))
    assert card["duplicates"]["prompts"]["whole"] is False
    assert "5 different prompts of a sample of 5 rows" in to_markdown(card)
    keyed = make(facts(rows, splits=splits, prompts=True, sample=[("train", row) for row in rows[:5]]))
    assert "20 different prompts of all rows" in to_markdown(keyed)


def test_rows_of_one_split_prove_nothing() -> None:
    card = card_of(pairs([(text(EN, 40), "a") for _ in range(9)]), splits=["train"] * 9)
    assert "duplicates" not in card and card["not_checked"]["duplicates"] == "fewer than two splits have rows"
    assert "stands in more than one split" not in to_markdown(card)
    assert ">not checked</div>" in to_html(card, "t")
