"""Preference data in its wild variants: two answers to the same question, cleaned alike, none lost on the way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tuneloop.core import jsonl
from tuneloop.core.conversation import Example, Message, Origin
from tuneloop.data.config import DataConfig, SourceConfig
from tuneloop.data.formats import FORMATS, RowError
from tuneloop.data.llama_factory import expand
from tuneloop.data.llama_factory_lints import lint
from tuneloop.data.prepare import load_examples, prepare_in
from tuneloop.data.steps import STEPS
from tuneloop.texts.words import content_key

Load = Callable[..., Any]
USER, GOOD, BAD = ({"role": role, "content": text} for role, text in
                   [("user", "天气?"), ("assistant", "晴"), ("assistant", "不知道")])  # fmt: skip
WANTED = ([("user", "天气?"), ("assistant", "晴")], [("assistant", "不知道")])


def sharegpt(turn: dict[str, str]) -> dict[str, str]:
    return {"from": {"user": "human", "assistant": "gpt"}[turn["role"]], "value": turn["content"]}


VARIANTS: dict[str, dict[str, Any]] = {
    "texts": {"prompt": "天气?", "chosen": "晴", "rejected": "不知道"},
    "explicit": {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
    "implicit": {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
    "ultrafeedback": {
        "prompt": "天气?", "chosen": [USER, GOOD], "rejected": [USER, BAD], "messages": [USER, GOOD],
    },
    "alpaca": {"instruction": "天气?", "input": "", "chosen": "晴", "rejected": "不知道"},
    "sharegpt": {"conversations": [sharegpt(USER)], "chosen": sharegpt(GOOD), "rejected": sharegpt(BAD)},
}  # fmt: skip


def said(messages: Any) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in messages]


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_say_the_same_and_are_recognised(name: str, loaded: Load) -> None:
    found = loaded("pairs.jsonl", [{**VARIANTS[name], "score": 3}] * 2)
    assert found.recognition.format == "preference" and not found.drops
    (example, _) = found.examples
    assert (said(example.messages), said(example.rejected)) == WANTED
    assert example.meta == {"score": 3}
    assert example.messages[-1].train is None


def test_earlier_answers_are_not_trained_on() -> None:
    before = [{"role": "system", "content": "s"}, USER, {"role": "assistant", "content": "wo?"}, USER]
    parts = FORMATS.make("preference").parse({"chosen": [*before, GOOD], "rejected": [*before, BAD]})
    assert [message.train for message in parts.messages] == [None, None, 0.0, None, None]
    parts = FORMATS.make("preference").parse({
        "prompt": "天气?", "system": "s", "history": [["a", "b"]], "chosen": [USER, GOOD], "rejected": [USER, BAD]
    })  # fmt: skip
    assert said(parts.messages)[0] == ("system", "s")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"prompt": "q", "chosen": "a"}, "no column 'rejected'"),
        ({"chosen": "a", "rejected": "b"}, "nothing is asked"),
        ({"prompt": "q", "chosen": "a", "rejected": "a"}, "are the same"),
        ({"chosen": [USER, GOOD, USER, GOOD], "rejected": [USER, BAD, USER, GOOD]}, "more than their last message"),
        ({"chosen": [USER, GOOD], "rejected": [USER, BAD, USER]}, "more than their last message"),
        ({"chosen": [GOOD, USER], "rejected": [GOOD, {**USER, "content": "!"}]}, "must end with the assistant"),
        ({"prompt": "q", "chosen": [], "rejected": "b"}, "the conversation is empty"),
        ({"prompt": "q", "chosen": 3, "rejected": [7]}, "message 0 has no 'role'"),
    ],
)
def test_what_is_no_pair_says_why(record: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowError, match=reason):
        FORMATS.make("preference").parse(record)


def test_ids_of_rows_without_a_rejected_answer_are_as_ever() -> None:
    messages = (Message("user", "q"), Message("assistant", "a"))
    plain = Example(messages, Origin("x", 0))
    assert plain.id == "3d069d48eba4594f" and "rejected" not in plain.to_json()
    pair = Example(messages, Origin("x", 0), rejected=(Message("assistant", "b"),))
    assert pair.id != plain.id and content_key(pair) != content_key(plain)
    assert Example.from_json(json.loads(json.dumps(pair.to_json()))) == pair


def test_own_rows_are_read_again(loaded: Load) -> None:
    (one, _) = loaded("pairs.jsonl", [VARIANTS["texts"]] * 2).examples
    (again, _) = loaded("train.jsonl", [one.to_json()] * 2, format="messages").examples
    assert (again.messages, again.rejected) == (one.messages, one.rejected)


def test_steps_clean_both_answers() -> None:
    messages = (Message("user", "q"), Message("assistant", "fine"))
    example = Example(messages, Origin("x", 0), rejected=(Message("assistant", "call 13812345678 &amp; now\u200b"),))
    masked = STEPS.make("pii").look(example)  # type: ignore[attr-defined]
    assert "[PHONE]" in masked.rejected[0].content and masked.messages == messages
    mended = STEPS.make("repair").look(example)  # type: ignore[attr-defined]
    assert mended.rejected[0].content == "call 13812345678 & now" and mended.messages == messages
    dropped = STEPS.make({"pii": {"action": "drop"}}).look(example)  # type: ignore[attr-defined]
    assert dropped.evidence["found"][0]["where"] == "rejected[0]"
    for name in ("language", {"map": {"set": {"answer": "answer.upper()"}}}, {"filter": {"keep": "rejected != ''"}}):
        kept = STEPS.make(name).look(example)  # type: ignore[attr-defined]
        assert isinstance(kept, Example) and kept.rejected == example.rejected, name


def test_pairs_come_through_preparation(write: Callable[..., str], tmp_path: Path) -> None:
    rows = [{"prompt": f"question {n} of many", "chosen": f"good {n}", "rejected": f"bad\u200b {n}"} for n in range(40)]
    rows.append({**rows[0], "rejected": "another bad one"})  # another pair, not a duplicate
    rows.append(rows[1])
    config = DataConfig.model_validate(
        {"sources": [{"path": write("pairs.jsonl", rows)}], "steps": ["repair", "exact_duplicates"]}
    )
    prepared = prepare_in(tmp_path / "out", config, seed=1)
    found = [one for name in ("train", "val", "test") for one in load_examples(prepared.train.parent / f"{name}.jsonl")]
    assert len(found) == 41 and all(one.rejected for one in found)
    assert {one.rejected[0].content for one in found} == {*(f"bad {n}" for n in range(40)), "another bad one"}
    assert prepared.card["rows"]["repaired"] == 40
    assert len(list(jsonl.read_lines(prepared.dropped))) == 1


@pytest.mark.parametrize("formatting", ["alpaca", "sharegpt"])
def test_ranking_of_llama_factory(formatting: str, write: Callable[..., str], tmp_path: Path) -> None:
    if formatting == "alpaca":
        rows = [{"ask": "天气?", "more": "", "better": "晴", "worse": "不知道", "sys": "s"}]
        columns = {"prompt": "ask", "query": "more", "chosen": "better", "rejected": "worse", "system": "sys"}
    else:
        rows = [{"talk": [sharegpt(USER)], "better": sharegpt(GOOD), "worse": sharegpt(BAD), "sys": "s"}]
        columns = {"messages": "talk", "chosen": "better", "rejected": "worse", "system": "sys"}
    write("x.json", rows)
    entry = {"file_name": "x.json", "ranking": True, "formatting": formatting, "columns": columns}
    write("dataset_info.json", json.dumps({"x": entry}))
    path = f"{tmp_path}/dataset_info.json#x"
    (source,) = expand(path)
    parts = source.format.parse(rows[0])
    assert (said(parts.messages), said(parts.rejected)) == ([("system", "s"), *WANTED[0]], WANTED[1])
    assert not lint(path) and isinstance(source, SourceConfig)


def test_the_loser_of_a_pairwise_annotation_is_the_rejected_answer(loaded: Load) -> None:
    def task(number: int, side: str) -> dict[str, Any]:
        result = {"from_name": "better", "to_name": "a,b", "type": "pairwise", "value": {"selected": side}}
        data = {"prompt": f"q{number}", "a": "first", "b": "second"}
        return {"id": number, "data": data, "annotations": [{"result": [result], "completed_by": 1}]}

    found = loaded("tasks.json", [task(1, "left"), task(2, "right")], format="label_studio")
    assert [(one.answer.content, one.rejected[0].content) for one in found.examples] == [
        ("first", "second"), ("second", "first")
    ]  # fmt: skip
