"""What the questions measure, on data made so that the answer is known."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.data.audit_facts import card_of, codes, forecast, pair, pairs
from tuneloop.core.conversation import JsonObject
from tuneloop.data.audit import to_markdown

FILL_EN = "the quick brown fox jumps over the lazy dog while nobody in town is looking at all that happens there today "
FILL_ZH = "在一个风和日丽的下午人们沿着河边散步并且谈论着最近发生的各种事情谁也没有注意到远处的钟声"


def level(card: JsonObject, code: str) -> str | None:
    return codes(card).get(code)


def said(card: JsonObject, code: str) -> str:
    return next(found["message"] for found in card["findings"] if found["code"] == code)


# -- languages and lengths ---------------------------------------------------------------------------------------------
def test_languages_that_train_does_not_have() -> None:
    rows = pairs([*((f"question {n}", "answer") for n in range(60)), *((f"第{n}个问题", "回答") for n in range(60))])
    card = card_of(rows, splits=["train"] * 60 + ["test"] * 60)
    assert card["languages"]["rows"] == {
        "zh": {"train": 0, "val": 0, "test": 60},
        "en": {"train": 60, "val": 0, "test": 0},
    }
    assert level(card, "language_not_trained") == "WARN"
    mixed = card_of(rows, splits=["train"] * 70 + ["test"] * 50)
    assert level(mixed, "language_shift") == "WARN" and level(mixed, "language_not_trained") is None
    even = card_of(rows, splits=["train", "test"] * 60)
    assert level(even, "language_shift") is None


@pytest.mark.parametrize("word", ["字", "word "])
def test_lengths_are_words_in_both_languages(word: str) -> None:
    sizes = [10] * 40 + [100] * 40 + [400] * 20
    card = card_of(pairs([(word * size, word * 3) for size in sizes]))
    prompt = card["lengths"]["prompt"]["all"]
    assert {key: prompt[key] for key in ("p50", "max", "short", "medium", "long")} == {
        "p50": 100, "max": 400, "short": 40, "medium": 40, "long": 20,
    }  # fmt: skip
    assert level(card, "length_imbalance") is None
    assert sum(sum(rows) for rows in card["lengths"]["prompt"]["histogram"]["rows"].values()) == 100
    assert level(card_of(pairs([(word * 10 + str(n), "a") for n in range(60)])), "length_imbalance") == "WARN"


# -- labels ------------------------------------------------------------------------------------------------------------
def labelled(counts: dict[str, int], words: dict[str, int] | None = None) -> list[Any]:
    rows = [(label, number) for label, size in counts.items() for number in range(size)]
    return [
        pair(f"q{row} " + "w " * (words or {}).get(label, 5), f"a{row}", row, label=label)
        for row, (label, _) in enumerate(rows)
    ]


def test_labels_have_two_levels() -> None:
    card = card_of(labelled({"reasoning/常识": 30, "reasoning/算术": 20, "写作": 50}), splits=["train"] * 100)
    found = card["labels"]
    assert {name: row["rows"] for name, row in found["groups"].items()} == {"reasoning": 50, "写作": 50}
    assert list(found["labels"]) == ["写作", "reasoning/常识", "reasoning/算术"]
    assert found["labels"]["写作"]["splits"] == {"train": 100 - 50, "val": 0, "test": 0}
    assert set(codes(card)) & {"label_imbalance", "rare_labels", "label_not_trained", "length_tells_label"} == set()


def test_label_alarms() -> None:
    rows = labelled({"a": 180, "b": 15, "c": 5})
    assert level(card_of(rows, splits=["train"] * 200), "label_imbalance") == "WARN"
    assert level(card_of(rows, splits=["train"] * 200), "rare_labels") == "WARN"
    assert level(card_of(rows, splits=["train"] * 195 + ["test"] * 5), "label_not_trained") == "WARN"
    lengths = labelled({"a": 50, "b": 50}, {"a": 5, "b": 100})
    assert level(card_of(lengths), "length_tells_label") == "WARN"
    assert level(card_of(labelled({f"text {n}": 1 for n in range(60)})), "labels_are_text") == "WARN"
    assert "labels" not in card_of(pairs([("q", "a")] * 50))


def test_five_thousand_labels_stay_a_card() -> None:
    card = card_of(labelled({f"l{n}": 2 for n in range(5000)}))
    assert card["labels"]["distinct"] == 5000 and len(card["labels"]["labels"]) == 500


# -- positions ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("fill", [FILL_EN, FILL_ZH])
@pytest.mark.parametrize(("place", "third"), [(0.1, "head"), (0.5, "middle"), (0.9, "tail")])
def test_where_the_key_information_sits(fill: str, place: float, third: str) -> None:
    fill = fill * 3
    cut = int(place * len(fill))
    rows = pairs([(f"{fill[:cut]} {1000 + 7 * n} {fill[cut:]}", f"{1000 + 7 * n}") for n in range(60)])
    card = card_of(rows)
    found = card["positions"]
    assert found["located"] == 60 and found["thirds"][third] == 60
    assert level(card, "key_position") == "WARN"


@pytest.mark.parametrize(
    "names", [["Ottawa", "Lisbon", "Nairobi", "Jakarta"], ["乌鲁木齐市", "呼和浩特市", "石家庄市区", "哈尔滨市区"]]
)
def test_even_positions_are_no_alarm(names: list[str]) -> None:
    fill = (FILL_EN if names[0].isascii() else FILL_ZH) * 3
    rows = []
    for n in range(60):
        cut, name = n * len(fill) // 60, f"{names[n % 4]}{n}"
        rows.append((f"{fill[:cut]} {name} {fill[cut:]}", f"{name}。"))
    assert level(card_of(pairs(rows)), "key_position") is None


def test_a_template_is_no_key_information() -> None:
    rows = [
        (f"Is this review positive or negative? Answer with one word. Review: {FILL_EN[n:]}", "positive")
        for n in range(60)
    ]
    assert card_of(pairs(rows))["positions"]["located"] == 0


# -- tokens ------------------------------------------------------------------------------------------------------------
def test_tokens_are_forecast_with_an_interval() -> None:
    rows = pairs([(f"q{n}", "a") for n in range(100)])
    card = card_of(rows, forecast=forecast([100] * 90 + [600] * 10, [50] * 100))
    found = card["tokens"]
    assert found["above"]["share"] == 0.1 and 0.05 < found["above"]["low"] < 0.1 < found["above"]["high"] < 0.18
    assert found["supervised_share"] == round(5000 / 15000, 4) and found["suggested"] == 640
    assert level(card, "truncated") == "WARN"
    assert level(card_of(rows, forecast=forecast([600] * 21 + [9] * 79, [5] * 100)), "truncated") == "ERROR"
    assert level(card_of(rows, forecast=forecast([512] * 100, [5] * 100)), "truncated") is None
    assert "tokens" not in card_of(rows)


@pytest.mark.parametrize(("none", "expected"), [(0, None), (5, "WARN"), (100, "ERROR")])
def test_rows_without_a_supervised_token(none: int, expected: str | None) -> None:
    rows = pairs([(f"q{n}", "a") for n in range(100)])
    supervised = [0] * none + [5] * (100 - none)
    assert level(card_of(rows, forecast=forecast([9] * 100, supervised)), "no_supervised_tokens") == expected


# -- conflicts, personal data, conversations ---------------------------------------------------------------------------
def test_conflicts_that_no_step_settled() -> None:
    rows = [
        pair("正面还是负面？电影很好看", "正面", 0), pair("正面还是负面?电影很好看", "负面", 1),
        pair("What is it?", "spam", 2, label="a"), pair("what is it?", "spam", 3, label="b"),
        pair("Write a poem.", "roses are red, violets are blue", 4), pair("Write a poem.", "there was an old man", 5),
    ]  # fmt: skip
    found = card_of(rows)["conflicts"]
    assert (found["other_labels"], found["other_short_answers"], found["other_answers"]) == (1, 1, 2)
    assert {side["said"] for side in found["examples"][1]["rows"]} == {"正面", "负面"}
    assert level(card_of(rows), "conflicts_left") == "WARN"
    told = [{"level": "WARN", "code": "label_conflicts", "count": 2, "message": "2 rows contradict"}]
    assert level(card_of(rows, findings=told), "conflicts_left") is None


@pytest.mark.parametrize(("said", "expected"), [
    ("我的身份证号是11010519491231002X，请办理。", {"pii": "ERROR"}),
    ("请转到卡号4111111111111111。", {"pii": "ERROR"}),
    ("电话13812345678联系我", {"pii_contact": "WARN"}),
    ("没有任何个人信息", {}),
])  # fmt: skip
def test_personal_data(said: str, expected: dict[str, str]) -> None:
    card = card_of(pairs([(said, "好的")]), splits=["train"], shares={"train": 1.0})
    assert codes(card) == expected


def test_answers_that_are_all_the_same() -> None:
    assert level(card_of(pairs([(f"q{n}", "negative") for n in range(9)])), "one_answer") == "WARN"
    assert level(card_of(pairs([(f"q{n}", f"a{n}") for n in range(9)])), "one_answer") is None


CHECK = {"against": ["eval.jsonl"], "words": 13, "characters": 13}


def test_contamination_that_was_not_checked_is_not_one_that_found_nothing() -> None:
    rows = pairs([(f"q{n}", "a") for n in range(5)])
    unchecked, clean = card_of(rows), card_of(rows, steps=[("contamination", CHECK)])
    found = card_of(rows, steps=[("contamination", CHECK)], dropped={("a.jsonl", "contamination", "in eval.jsonl"): 2})
    assert "contamination" not in unchecked and "no step contamination" in unchecked["not_checked"]["contamination"]
    assert "- Contamination: the recipe has no step" in to_markdown(unchecked)
    assert "contamination (the recipe has no step" in said(unchecked, "not_checked")
    assert clean["contamination"] == {"checks": [CHECK], "rows": 5, "found": 0, "dropped": []}
    claim = "no row that is left has text in common with eval.jsonl"
    assert f"{claim} (5 rows checked, none found and dropped" in to_markdown(clean)
    assert f"{claim} (7 rows checked, 2 found and dropped" in to_markdown(found)
    assert found["contamination"]["dropped"] == [{"source": "a.jsonl", "reason": "in eval.jsonl", "rows": 2}]
    assert "contamination" not in clean["not_checked"]


def test_a_step_that_did_not_run_did_not_find_nothing() -> None:
    rows = pairs([(f"q{n}", "a") for n in range(5)])
    bare = to_markdown(card_of(rows))
    assert "The step pii did not run" in bare and "reported by the step: not run" in bare
    assert "No step ran" in bare and "dropped by it" not in bare
    steps = [("exact_duplicates", {}), ("label_conflicts", {"policy": "drop"}), ("pii", {"action": "mask"})]
    ran = to_markdown(card_of(rows, steps=steps, dropped={("a.jsonl", "exact_duplicates", "again"): 3}))
    assert "rows that each dropped: exact\\_duplicates 3; label\\_conflicts 0; pii 0" in ran
    assert "The step pii (mask) went over the sources" in ran and "dropped by it: 0" in ran


def test_the_advice_on_personal_data_knows_the_step() -> None:
    rows = pairs([("电话13812345678联系我", "好的")])
    advice = [
        next(one["next"] for one in card_of(rows, steps=steps)["findings"] if one["code"] == "pii_contact")
        for steps in ((), [("pii", {"action": "mask"})])
    ]
    assert "add the step pii" in advice[0] and "own val and test files" in advice[1]
