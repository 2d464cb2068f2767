"""Conflicts: what contradicts what, what does not, and what each policy keeps."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stepping import decide

from tuneloop.core.conversation import Example, Message, Origin, ToolCall
from tuneloop.data.conflicts import disputes
from tuneloop.data.stance import KINDS, dispute, stance
from tuneloop.data.steps.label_conflicts import LabelConflicts

QUESTION = "公司去年的营业收入同比增长了吗？请根据年报回答。"


def example(prompt: str, answer: str, row: int = 0, **meta: Any) -> Example:
    return Example((Message("user", prompt), Message("assistant", answer)), Origin("s", row), meta=meta)


def conflict(one: Any, other: Any) -> str | None:
    """The kind of conflict between two answers, by the pairwise rule and by the step alike."""
    answers = [answer if isinstance(answer, tuple) else (answer, {}) for answer in (one, other)]
    rows = [example(QUESTION, answer, row, **meta) for row, (answer, meta) in enumerate(answers)]
    told = dispute(stance(rows[0]), stance(rows[1]))
    verdict = decide(LabelConflicts(policy="drop"), rows)
    kinds = {rejection.evidence["kind"] for rejection in verdict.rejected.values()}
    assert kinds == ({told} if told else set()) and len(verdict.rejected) in (0, 2)
    return told


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("label", ("好。", {"label": "reasoning/maths"}), ("好。", {"label": "reasoning/logic"})),
        ("answer", "positive feedback", "mixed feedback"),
        ("polarity", "positive", "Negative."),
        ("answer", "北京", "上海"),
        ("number", "42", "43"),
        ("number", "1,000 元", "一共 100 元"),
        ("number", "-5", "5"),
        ("number", "First we add, then we halve, and so on. #### 42", "We halve and add, whichever. #### 43"),
        ("number", "So the answer is 12, since each of them has three.", "Hence the answer is 13, as they share one."),
        ("number", "把两边同时除以三可以看出，答案是 4。", "答案是：5，因为两边需要同时减去一。"),
        ("number", r"Solve it for x first, then you will see that \boxed{3}", r"It must be that \boxed{4}, I think so"),
        ("polarity", "Yes, it did, by a margin that nobody had expected before.", "No, it fell for the first time."),
        ("polarity", "是的，营业收入同比有明显的增长。", "不是，营业收入与上一年相比基本持平。"),
        ("number", "营业收入同比增长3.2%，净利润持平。", "营业收入同比增长2.3%，净利润持平。"),
        ("polarity", "营业收入同比有增长，净利润持平。", "营业收入同比没有增长，净利润持平。"),
        ("polarity", "营业收入同比增长，净利润持平。", "营业收入同比没有增长，净利润持平。"),
        ("polarity", "Revenue did grow in the year before last.", "Revenue did not grow in the year before last."),
    ],
)
def test_contradictions(kind: str, one: Any, other: Any) -> None:
    assert conflict(one, other) == kind
    assert conflict(other, one) == kind


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Revenue grew because two shops were opened.", "It did grow, mostly by way of the new shops."),
        ("营业收入同比增长，主要来自新开门店。", "有增长的，新店贡献了大部分的收入。"),
        ("42", "42.0"),
        ("1,000", "１０００"),
        ("Yes.", "Yes, it did."),
        ("Paris", "paris."),
        ("北京", " 北京。"),
        (
            "It takes 3 steps: read 2 reports, ask 1 person.",
            "Read the reports, all 5 of them, and compare the 2 years.",
        ),
        ("No one knows for sure what will come of it.", "Yes, people do know what will come of it now."),
        ("非常好，营业收入同比增长。", "好，营业收入同比增长。"),
        (("好。", {"label": "a"}), ("好。", {})),
        ("", "。"),
    ],
)
def test_answers_that_merely_differ(one: Any, other: Any) -> None:
    assert conflict(one, other) is None


def test_calls() -> None:
    def call(city: str, row: int) -> Example:
        answer = Message("assistant", "", tool_calls=(ToolCall("weather", {"city": city, "days": 2}, id=str(row)),))
        return Example((Message("user", "weather?"), answer), Origin("s", row))

    verdict = decide(LabelConflicts(policy="drop"), [call("Bonn", 0), call("Rome", 1), call("Bonn", 2)])
    assert sorted(verdict.rejected) == [0, 1, 2]
    assert not decide(LabelConflicts(policy="drop"), [call("Bonn", 0), call("Bonn", 2)]).rejected


NEAR = "请问我昨天在你们官网提交的退款申请一般什么时候可以到账，需要我再做什么操作吗？"


@pytest.mark.parametrize(
    ("prompt", "other", "found"),
    [
        (NEAR, NEAR.replace("可以", "能够"), True),
        (NEAR, NEAR + "谢谢", True),
        (NEAR + "订单号 12", NEAR + "订单号 13", False),
        (NEAR + "我同意。", NEAR + "我不同意。", False),
        (NEAR, "退款到哪里了？", False),
        ("What is the capital of France?", "what is  the capital of FRANCE?", True),
    ],
)
def test_near_same_prompts(prompt: str, other: str, found: bool) -> None:
    rows = [example(prompt, "三天", 0), example(other, "五天", 1)]
    assert len(decide(LabelConflicts(policy="drop"), rows).rejected) == 2 * found
    equal = prompt.casefold().split() == other.casefold().split()
    assert len(decide(LabelConflicts(policy="drop", near=None), rows).rejected) == 2 * (found and equal)


def test_other_system_prompts_and_tools_ask_something_else() -> None:
    def row(number: int, system: str, answer: str, *tools: dict[str, Any]) -> Example:
        messages = (Message("system", system), Message("user", "Who are you?"), Message("assistant", answer))
        return Example(messages, Origin("s", number), tools)

    step = LabelConflicts(policy="drop")
    assert not decide(step, [row(0, "A pirate.", "Jack"), row(1, "A nurse.", "Jill")]).rejected
    assert not decide(step, [row(0, "", "Jack"), row(1, "", "Jill", {"name": "look_up"})]).rejected
    assert len(decide(step, [row(0, "A nurse.", "Jack"), row(1, "a nurse.", "Jill")]).rejected) == 2


def test_a_template_makes_no_prompts_near_same() -> None:
    template = "Is this movie review positive or negative? Answer with one word and do not explain. Review: "
    chance = random.Random(1)
    films = [
        " ".join(chance.choices("plot cast score pace cut tone dull fine warm cold".split(), k=3)) for _ in range(60)
    ]
    rows = [example(template + film, ["positive", "negative"][len(film) % 2], row) for row, film in enumerate(films)]
    assert not decide(LabelConflicts(policy="drop"), rows).rejected


def test_policies() -> None:
    rows = [
        example("capital?", "Paris", 0),
        example("capital?", "paris.", 1),
        example("Capital?", "Lyon", 2),
        example("capital?", "Paris is the capital, as everybody knows.", 3),
        example("river?", "Seine", 4),
        example("river?", "Loire", 5),
        example("sea?", "North Sea", 6),
    ]
    assert not decide(LabelConflicts(), rows).rejected
    assert sorted(decide(LabelConflicts(policy="drop"), rows).rejected) == [0, 1, 2, 4, 5]
    majority = decide(LabelConflicts(policy="majority"), rows)
    assert sorted(majority.rejected) == [2, 4, 5], "without a majority nobody knows which is right"
    assert majority.rejected[2].evidence == {
        "kind": "answer",
        "prompts": "equal",
        "says": "Lyon",
        "other": {"id": rows[0].id, "origin": {"source": "s", "row": 0}, "says": "Paris"},
    }


def test_the_finding_shows_both_rows_and_labels_first() -> None:
    rows = [example(f"q{row // 2} 题目是什么", f"{row}", row) for row in range(16)]
    rows += [example("标签", "好", 16, label="a"), example("标签", "好", 17, label="b")]
    (finding,) = decide(LabelConflicts(), rows).findings
    assert (finding["level"], finding["code"], finding["count"]) == ("WARN", "label_conflicts", 18)
    assert finding["questions"] == 9 and len(finding["examples"]) == 5
    first = finding["examples"][0]
    assert first["kind"] == "label"
    assert [row["says"] for row in first["rows"]] == ["[a] 好", "[b] 好"]
    assert [row["origin"]["row"] for row in first["rows"]] == [16, 17]
    assert "2 by label" in finding["message"] and "16 by number" in finding["message"]


def test_nothing_to_find() -> None:
    assert decide(LabelConflicts(), []).findings == ()
    blank = [Example((Message("user", ""), Message("assistant", str(row))), Origin("s", row)) for row in range(3)]
    assert decide(LabelConflicts(), blank).findings == (), "an empty prompt asks nothing"


ANSWERS = ["Yes.", "yes, sure", "No.", "4", "5", "4 apples", "Maybe", "", "It is 4, they say, and so do I.",
           "It is 5, they say, and so do I.", "It is not 4, they say, and so do I.", "#### 4"]  # fmt: skip


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(ANSWERS), st.sampled_from(["", "a", "b"])), max_size=9))
def test_the_columns_say_what_the_pairs_say(made: list[tuple[int, str, str]]) -> None:
    rows = [example(f"q{group}", answer, row, label=label) for row, (group, answer, label) in enumerate(made)]
    stances = [stance(one) for one in rows]
    groups = np.array([group for group, _, _ in made], np.int64)
    found = disputes(groups, np.array(stances, np.uint64).reshape(-1, 7))
    for row in range(len(rows)):
        kinds = [dispute(stances[row], stances[other]) for other in range(len(rows)) if groups[other] == groups[row]]
        assert (found.kind[row] >= 0) == any(kinds)
        if any(kinds):
            assert KINDS[found.kind[row]] in kinds
            assert groups[found.other[row]] == groups[row]
            assert dispute(stances[row], stances[found.other[row]])
