"""The step `pii`: what it rewrites, where, and what it never shows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from stepping import run

from tuneloop.core import jsonl
from tuneloop.core.conversation import Drop, Example, Message, Origin, ToolCall
from tuneloop.data.steps import STEPS, Rejection, RowStep
from tuneloop.data.trays import left_of

RECORD = "患者张三，病历号：ZY20231234，出生日期：1990-03-07，电话 138 0013 8000，邮箱zhangsan@qq.com。"
RAW = ["ZY20231234", "1990-03-07", "138 0013 8000", "13800138000", "zhangsan@qq.com", "E12345678", "13912345678"]


def example(*messages: Message, **more: Any) -> Example:
    return Example(messages, Origin("s", 0), **more)


def rich() -> Example:
    call = ToolCall("find", {"phone": 13912345678, "ids": [{"mrn": "88123456"}], "n": [1.5, True, None, 7]})
    return example(
        Message("user", RECORD),
        Message("assistant", "好", reasoning="ZY20231234 的电话是13800138000", tool_calls=(call,)),
        Message("tool", '{"passport_number": "E12345678", "dob": "1990-03-07"}', tool_call_id="c1"),
        meta={"phone": "13800138000", "label": "a/b", "annotations": [{"rater": "ann@firm.cn", "item": 3}]},
    )


def look(given: Example, **options: Any) -> Example | Rejection:
    step = STEPS.make({"pii": options})
    assert isinstance(step, RowStep)
    return step.look(given)


def rewritten(given: Example, **options: Any) -> Example:
    result = look(given, **options)
    assert isinstance(result, Example)
    return result


def text_of(given: Example) -> str:
    shown = given.to_json()
    shown["meta"] = {key: value for key, value in given.meta.items() if key != "annotations"}
    return json.dumps(shown, ensure_ascii=False)


def test_masks_content_reasoning_arguments_results_and_meta() -> None:
    user, assistant, tool = rewritten(rich()).messages
    assert user.content == "患者张三，病历号：[MEDICAL_RECORD]，出生日期：[DATE]，电话 [PHONE]，邮箱[EMAIL]。"
    assert assistant.reasoning == "[MEDICAL_RECORD] 的电话是[PHONE]"
    (call,) = assistant.tool_calls
    assert call.arguments == {"phone": "[PHONE]", "ids": [{"mrn": "[MEDICAL_RECORD]"}], "n": [1.5, True, None, 7]}
    assert json.loads(tool.content) == {"passport_number": "[PASSPORT]", "dob": "[DATE]"}
    assert not any(value in text_of(rewritten(rich())) for value in RAW)
    assert rewritten(rich()).origin == rich().origin and tool.tool_call_id == "c1"


def test_raters_stay_apart() -> None:
    assert rewritten(rich()).meta == {"phone": "[PHONE]", "label": "a/b", "annotations": rich().meta["annotations"]}


def test_a_clean_row_is_the_same_object() -> None:
    clean = example(Message("user", "北京到上海多远？ 2019-2020"), Message("assistant", "1,213公里"), meta={"id": 7})
    assert look(clean) is clean
    assert look(clean, action="surrogate", strength="weak") is clean


def test_hints_only_when_asked() -> None:
    given = example(Message("user", "患者张三，住在南京路100号"), Message("assistant", "张三您好"))
    assert look(given) is given
    assert [m.content for m in rewritten(given, strength="weak").messages] == [
        "患者[PERSON_NAME]，住在[ADDRESS]", "[PERSON_NAME]您好",
    ]  # fmt: skip


def test_kinds() -> None:
    new = rewritten(rich(), kinds=["email"])
    assert "138 0013 8000" in new.messages[0].content and "[EMAIL]" in new.messages[0].content
    with pytest.raises(ValidationError, match=r"no kind 'mail' \(did you mean 'email'\?\); kinds: address, bank_card"):
        STEPS.make({"pii": {"kinds": ["mail"]}})
    with pytest.raises(ValidationError, match="an empty list finds nothing"):
        STEPS.make({"pii": {"kinds": []}})


@pytest.mark.parametrize("key", ["", "a secret"])
def test_surrogates(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNELOOP_PII_KEY", key)
    new = rewritten(rich(), action="surrogate")
    assert not any(value in text_of(new) for value in RAW)
    user, assistant, tool = new.messages
    number = user.content.split("电话 ")[1][:13].replace(" ", "")
    assert assistant.reasoning is not None and assistant.reasoning.endswith(number) and new.meta["phone"] == number
    arguments = assistant.tool_calls[0].arguments
    assert isinstance(arguments["phone"], int), "a number stays a number: the tool's schema says so"
    born = json.loads(tool.content)["dob"]
    assert (born == "[DATE]") is (key == ""), "without a secret everybody could shift the dates back"
    assert f"出生日期：{born}，" in user.content
    assert rewritten(rich(), action="surrogate") == new


def test_surrogates_of_equal_rows_are_equal_wherever_they_stand() -> None:
    elsewhere = Example(rich().messages, Origin("other", 99), meta=rich().meta)
    assert rewritten(elsewhere, action="surrogate").id == rewritten(rich(), action="surrogate").id


def test_a_dropped_row_shows_kinds_and_shapes_and_no_value() -> None:
    rejection = look(rich(), action="drop")
    assert isinstance(rejection, Rejection)
    assert rejection.reason == "holds personal data"
    assert rejection.evidence["count"] == len(rejection.evidence["found"]) == 11
    first = {"where": "messages[0]", "kind": "medical_record", "strength": "strong", "shape": "AA00000000"}
    assert rejection.evidence["found"][0] == first
    assert not any(value in json.dumps(rejection.evidence) for value in RAW)
    kept, gone = run([STEPS.make({"pii": {"action": "drop"}})], [rich(), example(Message("user", "你好"))])
    assert (len(kept), len(gone)) == (1, 1)


def test_many_finds_are_counted_and_some_shown() -> None:
    rejection = look(example(Message("user", " ".join(f"u{n}@firm.cn" for n in range(50)))), action="drop")
    assert isinstance(rejection, Rejection)
    assert (rejection.evidence["count"], len(rejection.evidence["found"])) == (50, 20)


def test_keys_of_objects_are_masked_and_none_is_lost() -> None:
    call = ToolCall("save", {"ann@firm.cn": 1, "bob@firm.cn": 2, "order_id": "13812345678"})
    new = rewritten(example(Message("assistant", "", tool_calls=(call,)))).messages[0].tool_calls[0].arguments
    assert new == {"[EMAIL]": 1, "[EMAIL]_": 2, "order_id": "13812345678"}


@pytest.mark.parametrize("number", [13812345678, 13812345678.0])
def test_a_number_column_of_a_table(number: float) -> None:
    given = example(Message("user", "?"), meta={"手机": number, "rate": 0.5, "nan": float("nan"), "inf": float("inf")})
    assert rewritten(given).meta["手机"] == "[PHONE]"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(RAW),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@given(json_values, st.lists(st.sampled_from([*RAW, "护照", "MRN: ", " ", "，", "电话"]), max_size=6).map("".join))
def test_a_second_pass_finds_nothing_more(arguments: Any, text: str) -> None:
    call = ToolCall("f", arguments)
    given = example(Message("user", text), Message("assistant", text, reasoning=text, tool_calls=(call,)))
    once = rewritten(given, strength="weak")
    assert look(once, strength="weak") is once


TRICKY = [
    *(*RAW, "4111111111111111", "１３８１２３４５６７８", "li＠firma.cn", "Ann Lee", "张先生", "hunter2x", "北京路"),
    *("12号", "sk-ab12cd34ef56gh78ij90", "name", "phone", "password", "id", "row", "kept", "电话", "MRN: "),
    *("Dear ", "my name is ", '"', "\\", "\n", "\t", "\r", "\x07", "\ud800"),
    *(": ", '": "', "n", "u", "/", " ", "a", "，", "0123456789abcdef"),
]  # fmt: skip
tricky = st.lists(st.sampled_from(TRICKY), max_size=6).map("".join)
tricky_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-1e18, 1e18) | tricky | st.sampled_from([13812345678, 1e16]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(tricky, inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("strength", ["strong", "weak"])
@given(asked=tricky, said=tricky, meta=st.dictionaries(tricky, tricky_values, max_size=3), evidence=tricky_values)
def test_no_line_with_something_to_hide_is_passed_over(
    strength: str, asked: str, said: str, meta: dict[str, Any], evidence: Any
) -> None:
    step = STEPS.make({"pii": {"strength": strength}})
    given = example(Message("user", asked), Message("assistant", said), meta=meta)
    drop = Drop(given, "filter", "is so", given.origin, {"why": evidence})
    for line in (jsonl.dump(drop.to_json()), left_of(drop, jsonl.dump(given.to_json())).line):
        value = jsonl.parse_dumped(line)
        shown = {key: value[key] for key in ("example", "reason", "evidence")}
        assert step.may_redact([b"{}", line])[1] or step.redact(shown) is shown


def test_most_lines_are_passed_over() -> None:
    step = STEPS.make("pii")
    clean = example(
        Message("user", 'What\'s "2+2"?\nTell me.'), Message("assistant", "四，或 4.\tSurely."), meta={"n": 12}
    )
    evidence = {"kept": {"id": clean.id, "origin": {"source": "s", "row": 1234567}}, "similarity": 0.8125}
    line = jsonl.dump(Drop(clean, "near_duplicates", "says nearly the same", clean.origin, evidence).to_json())
    spoken = line.replace(b"Surely", b"138 0013 8000")
    assert list(step.may_redact([line, spoken])) == [False, True]
