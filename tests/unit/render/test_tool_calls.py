from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.core.conversation import ToolCall
from tuneloop.render.tool_calls import canonical, read_tool_calls

CALL = ToolCall("get_weather", {"city": "北京", "days": 3})
OTHER = ToolCall("now", {})
ONE = '{"name": "get_weather", "arguments": {"city": "北京", "days": 3}}'
NOW = '{"name": "now", "arguments": {}}'
LLAMA = '{"name": "get_weather", "parameters": {"city": "北京", "days": 3}}'
DATA = Path(__file__).resolve().parents[4] / "shared" / "data" / "toolcalls"


@pytest.mark.parametrize(
    ("text", "said", "calls"),
    [
        (f"<tool_call>\n{ONE}\n</tool_call>", "", [CALL]),
        (f"Let me look.\n<tool_call>\n{ONE}\n</tool_call>", "Let me look.", [CALL]),
        (f"<tool_call>{ONE}</tool_call>\n<tool_call>{NOW}</tool_call>", "", [CALL, OTHER]),
        (f"<tool_call>\n{ONE}", "", [CALL]),  # the stop token came before the end of the mark
        (f"<function_call>{ONE}</function_call>", "", [CALL]),
        ("<tool_call>\n<function=get_weather>\n<parameter=city>\n北京\n</parameter>\n<parameter=days>\n3\n</parameter>\n"
         "</function>\n</tool_call>", "", [CALL]),
        ("<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>北京</arg_value>\n<arg_key>days</arg_key>\n"
         "<arg_value>3</arg_value>\n</tool_call>", "", [CALL]),
        (LLAMA, "", [CALL]),
        (f"<|python_tag|>{LLAMA}; {LLAMA}", "", [CALL, CALL]),
        ('<function=now>{}</function>', "", [OTHER]),
        (f"[TOOL_CALLS] [{ONE}]", "", [CALL]),
        ('[TOOL_CALLS]get_weather[ARGS]{"city": "北京", "days": 3}[TOOL_CALLS]now[ARGS]{}', "", [CALL, OTHER]),
        ('[TOOL_CALLS]now{}', "", [OTHER]),
        (f"[{ONE}]", "", [CALL]),
        (f"```json\n{ONE}\n```", "", [CALL]),
        (f"I call:\n```json\n[{ONE}]\n```", "I call:", [CALL]),
        ('{"type": "function", "id": "c1", "function": {"name": "now", "arguments": "{}"}}', "",
         [ToolCall("now", {}, "c1")]),
        ('{"name": "now", "arguments": "not json"}', "", [ToolCall("now", "not json")]),
        # no calls
        ("The weather is fine.", "The weather is fine.", []),
        ('{"name": "Ann", "age": 3}', '{"name": "Ann", "age": 3}', []),
        (f"Write {ONE} to call it.", f"Write {ONE} to call it.", []),
        ("```json\n{\"a\": 1}\n```", "```json\n{\"a\": 1}\n```", []),
        ("", "", []),
    ],
)  # fmt: skip
def test_the_forms_that_models_write(text: str, said: str, calls: list[ToolCall]) -> None:
    read = read_tool_calls(text)
    assert (read.text, list(read.calls), read.broken) == (said, calls, ())


@pytest.mark.parametrize(
    "text",
    ["<tool_call>{broken</tool_call>", '<tool_call>{"city": "x"}</tool_call>', "[TOOL_CALLS] nothing",
     "<|python_tag|>print(1)", "<tool_call>" + "[" * 100_000],
)  # fmt: skip
def test_a_mark_without_a_call_is_broken(text: str) -> None:
    read = read_tool_calls(text)
    assert not read.calls and read.broken


@given(st.text(max_size=80) | st.text(alphabet='<>{}[]":tool_calarguments \n`=/', max_size=80))
def test_any_text_is_read(text: str) -> None:
    read_tool_calls(text)
    read_tool_calls(f"<tool_call>{text}")
    read_tool_calls(f"[TOOL_CALLS]{text}")


def test_values_are_equal_as_json() -> None:
    assert canonical({"a": 1, "b": [1.0, None]}) == canonical({"b": [1, None], "a": 1.0})
    assert canonical(True) != canonical(1) and canonical([1, 2]) != canonical([2, 1]) and canonical("1") != canonical(1)


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data/toolcalls")
@pytest.mark.parametrize("language", ["en", "zh"])
def test_real_calls_are_read_back_from_every_form(language: str) -> None:
    conversations: list[Any] = json.loads((DATA / f"sharegpt_toolcalls_{language}.json").read_text("utf-8"))
    written = [
        turn["value"] for row in conversations for turn in row["conversations"] if turn["from"] == "function_call"
    ]
    assert len(written) > 100
    for text in written:
        call = json.loads(text)
        expected = [ToolCall(call["name"], call["arguments"])]
        llama = json.dumps({"name": call["name"], "parameters": call["arguments"]}, ensure_ascii=False)
        named = f"[TOOL_CALLS]{call['name']}[ARGS]{json.dumps(call['arguments'])}"
        for form in (
            text,
            f"<tool_call>\n{text}\n</tool_call>",
            f"[TOOL_CALLS] [{text}]",
            f"```json\n{text}\n```",
            llama,
            named,
        ):
            assert list(read_tool_calls(form).calls) == expected, form
