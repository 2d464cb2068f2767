"""Each format turns its wild variants into the same messages, and what it cannot read into a reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from conftest import Loaded

from tuneloop.core.conversation import Example
from tuneloop.core.errors import DataError
from tuneloop.data.formats import FORMATS, RowError

Load = Callable[..., Loaded]
Turns = Callable[[Example], list[tuple[str, str]]]
CALL = {"name": "weather", "arguments": {"city": "北京", "days": [1, None, 2.0]}}


def parse(name: str, record: dict[str, Any]):
    return FORMATS.make(name).parse(record)


def roles(parts: Any) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in parts.messages]


# -- messages ----------------------------------------------------------------------------------------------------------
def test_openai_messages_with_tools_keep_arguments_and_schemas() -> None:
    tools = [
        {"type": "function", "function": {"name": "weather", "parameters": {"properties": {"x": {"default": None}}}}}
    ]
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": json.dumps(CALL["arguments"])}}
    record = {
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": "天气?"},
            {"role": "assistant", "content": None, "tool_calls": [call], "weight": 0},
            {"role": "tool", "tool_call_id": "c1", "content": "21C"},
            {"role": "assistant", "content": "21 度", "weight": 1},
        ],
        "tools": tools,
        "parallel_tool_calls": False,
        "topic": "weather",
    }
    parts = parse("messages", record)
    assert [message.role for message in parts.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert parts.messages[2].tool_calls[0].arguments == CALL["arguments"]
    assert parts.messages[2].train == 0.0
    assert parts.messages[3].tool_call_id == "c1"
    assert parts.messages[4].train is None, "saying the default weight must not change the id"
    assert list(parts.tools) == tools
    assert parts.meta == {"topic": "weather"}
    assert parse("messages", {**record, "tools": json.dumps(tools)}).tools == parts.tools


@pytest.mark.parametrize(
    "turn",
    [
        {"tool_calls": [{"type": "function", "function": CALL}]},
        {"tool_calls": json.dumps([{"function": CALL}])},
        {"tool_calls": [CALL]},
        {"function_call": {"name": "weather", "arguments": json.dumps(CALL["arguments"])}},
        {"content": [{"type": "tool_call", "value": json.dumps(CALL)}]},
        {"content": [{"type": "tool_use", "id": "t", "name": "weather", "input": CALL["arguments"]}]},
    ],
)
def test_every_way_to_write_a_call_gives_the_same(turn: dict[str, Any]) -> None:
    parts = parse("messages", {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", **turn}]})
    (call,) = parts.messages[1].tool_calls
    assert (call.name, call.arguments) == (CALL["name"], CALL["arguments"])


def test_arguments_that_are_no_json_stay_text() -> None:
    turn = {"role": "assistant", "function_call": {"name": "run", "arguments": "print(1"}}
    assert parse("messages", {"messages": [turn]}).messages[0].tool_calls[0].arguments == "print(1"


def test_typed_parts_and_anthropic_results() -> None:
    assistant = [
        {"type": "thinking", "thinking": "Hm."},
        {"type": "text", "text": "Let me "},
        {"type": "text", "value": "look."},
        {"type": "tool_use", "id": "t1", "name": "f", "input": {}},
    ]
    user = [
        {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "42"}]},
        {"type": "text", "text": "And?"},
    ]
    parts = parse(
        "messages", {"messages": [{"role": "assistant", "content": assistant}, {"role": "user", "content": user}]}
    )
    assert roles(parts) == [("assistant", "Let me look."), ("tool", "42"), ("user", "And?")]
    assert parts.messages[0].reasoning == "Hm."
    assert parts.messages[1].tool_call_id == "t1"


def test_weights_of_conversation_and_message_multiply() -> None:
    turns = [
        {"role": "user", "content": "q", "loss_weight": 0.0},
        {"role": "assistant", "content": "a", "weight": 0.5},
        {"role": "assistant", "content": "b", "train": False},
    ]
    messages = parse("messages", {"messages": turns, "weight": 2}).messages
    assert [message.weight for message in messages] == [0.0, 1.0, 0.0]
    with pytest.raises(RowError, match="loss weight"):
        parse("messages", {"messages": [{"role": "user", "content": "q", "weight": -1}]})


def test_our_own_rows_read_back_equal(loaded: Load) -> None:
    row = {"messages": [{"role": "text", "content": "A", "train": 0.0}, {"role": "text", "content": "B", "train": 1.0}]}
    first = loaded("a.jsonl", [{**row, "label": "x"}]).examples[0]
    again = loaded("b.jsonl", [first.to_json()]).examples[0]
    assert again.id == first.id
    assert again.meta["label"] == "x"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({}, "the conversation is empty"),
        ({"messages": []}, "the conversation is empty"),
        ({"messages": "[{"}, "not valid JSON"),
        ({"messages": [{"content": "x"}]}, "message 0 has no 'role'"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "unknown role 'wizard'"),
        ({"messages": [{"role": "user", "content": None}]}, "has no content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "text only"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "text only"),
        ({"messages": [{"role": "user", "content": "<image>?"}], "images": ["a.jpg"]}, "the row has images"),
        ({"messages": [{"role": "user", "content": "?"}], "tools": "no json"}, "tools is text, but not valid JSON"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"function": {}}]}]}, "tool call without a name"),
    ],
)
def test_unreadable_messages_say_why(record: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowError, match=reason):
        parse("messages", record)


# -- sharegpt ----------------------------------------------------------------------------------------------------------
def test_sharegpt_with_calls() -> None:
    turns = [
        {"from": "human", "value": "?"},
        {"from": "gpt", "value": "I look."},
        {"from": "function_call", "value": json.dumps(CALL, ensure_ascii=False)},
        {"from": "function_call", "value": json.dumps(CALL)},
        {"from": "observation", "value": '{"t": 21}'},
        {"from": "gpt", "value": "21"},
    ]
    parts = parse("sharegpt", {"conversations": turns, "system": "S", "tools": json.dumps([CALL])})
    assert roles(parts) == [
        ("system", "S"), ("user", "?"), ("assistant", "I look."), ("tool", '{"t": 21}'), ("assistant", "21"),
    ]  # fmt: skip
    assert [call.arguments for call in parts.messages[2].tool_calls] == [CALL["arguments"]] * 2
    assert parts.tools == (CALL,)


@pytest.mark.parametrize("name", ["gpt", "assistant", "chatgpt", "bing", "GPT"])
def test_sharegpt_names_of_the_assistant(name: str) -> None:
    parts = parse("sharegpt", {"conversations": [{"from": "user", "value": "q"}, {"from": name, "value": "a"}]})
    assert roles(parts) == [("user", "q"), ("assistant", "a")]


def test_swift_rounds() -> None:
    parts = parse(
        "sharegpt", {"conversation": [{"human": "q1", "assistant": "a1"}, {"human": "q2", "assistant": "a2"}]}
    )
    assert roles(parts) == [("user", "q1"), ("assistant", "a1"), ("user", "q2"), ("assistant", "a2")]


def test_a_call_that_is_no_json_is_a_reason() -> None:
    with pytest.raises(RowError, match="tool call is text, but not valid JSON"):
        parse("sharegpt", {"conversations": [{"from": "function_call", "value": "weather(北京)"}]})


# -- alpaca, prompt_response, text -------------------------------------------------------------------------------------
def test_alpaca_with_history_and_system() -> None:
    record = {"instruction": "I", "input": "X", "output": "O", "system": "S", "history": [["q", "a"]], "lang": "en"}
    parts = parse("alpaca", record)
    assert roles(parts) == [("system", "S"), ("user", "q"), ("assistant", "a"), ("user", "I\nX"), ("assistant", "O")]
    assert parts.meta == {"lang": "en"}
    assert parse("alpaca", {**record, "history": '[["q", "a"]]'}).messages == parts.messages


def test_json_answers_become_their_text_and_it_is_said() -> None:
    parts = parse("alpaca", {"instruction": "I", "output": {"name": "张三", "age": 3}})
    assert parts.messages[-1].content == '{"name":"张三","age":3}'
    assert parts.notes
    assert parse("alpaca", {"instruction": "I", "output": 72}).messages[-1].content == "72"


@pytest.mark.parametrize("output", [None, float("nan")])
@pytest.mark.parametrize("instruction", ["", "I"])
def test_alpaca_without_question_or_answer(instruction: str, output: float | None) -> None:
    with pytest.raises(RowError, match="no output" if instruction else "no instruction"):
        parse("alpaca", {"instruction": instruction, "output": output})


@pytest.mark.parametrize(
    "prompt", ["prompt", "query", "question", "problem", "input", "instruction", "Question", "问题"]
)
@pytest.mark.parametrize("response", ["response", "answer", "output", "completion", "target", "回答"])
def test_usual_column_names(prompt: str, response: str) -> None:
    assert roles(parse("prompt_response", {"id": 1, prompt: "q", response: "a"})) == [("user", "q"), ("assistant", "a")]


def test_trl_prompt_and_completion_as_message_lists() -> None:
    record = {
        "prompt": [
            {"role": "user", "content": "1"},
            {"role": "assistant", "content": "2"},
            {"role": "user", "content": "3"},
        ],
        "completion": [{"role": "assistant", "content": "4"}],
    }
    parts = parse("prompt_response", record)
    assert roles(parts) == [("user", "1"), ("assistant", "2"), ("user", "3"), ("assistant", "4")]
    assert [message.weight for message in parts.messages] == [0, 0, 0, 1], "only the completion is trained on"


def test_text_documents_are_trained_on(loaded: Load, turns: Turns) -> None:
    source = loaded("a.txt", "One.\n\n二。\n")
    assert [turns(example) for example in source.examples] == [[("text", "One.")], [("text", "二。")]]
    assert all(example.answer.weight == 1 for example in source.examples)
    assert source.recognition.format == "text"


# -- table: columns and template ---------------------------------------------------------------------------------------
def test_table_by_columns(loaded: Load, turns: Turns) -> None:
    csv = "question,answer,topic,system,prompt\n退款?,三天,refund,Windows,ID7\n"
    source = loaded(
        "a.csv", csv, format="table", columns={"prompt": "question", "response": "answer", "label": "topic"}
    )
    assert turns(source.examples[0]) == [("user", "退款?"), ("assistant", "三天")], "an unlisted `system` is no prompt"
    assert source.examples[0].meta == {"label": "refund", "system": "Windows", "column_prompt": "ID7"}


def test_columns_under_auto_mean_a_table_or_rename(loaded: Load, turns: Turns) -> None:
    rows = [{"q": "a?", "r": "b", "passage": "p"}]
    assert loaded("a.jsonl", rows, columns={"prompt": "q", "response": "r"}).recognition.format == "table"
    renamed = loaded("b.jsonl", [{"body": "Prose."}], columns={"text": "body"})
    assert turns(renamed.examples[0]) == [("text", "Prose.")]


TEMPLATE = {
    "prompt": "Review: {{ sentence }}",
    "response": "{{ {'0': 'negative', '1': 'positive'}[label] }}",
    "kind": "{{ row['the kind'] }}",
}


def test_template(loaded: Load, turns: Turns) -> None:
    source = loaded("a.tsv", 'sentence\tlabel\tthe kind\nso "good" \t1\tk\nbad\t7\tk\n', template=TEMPLATE)
    assert turns(source.examples[0]) == [("user", 'Review: so "good" '), ("assistant", "positive")]
    assert source.examples[0].meta["kind"] == "k"
    assert source.examples[0].meta["label"] == "1"
    (drop,) = source.drops
    assert drop.step == "table" and "template for response" in drop.reason and drop.origin.row == 1


def test_a_template_never_prints_null_and_cannot_reach_python(loaded: Load) -> None:
    rows = [{"q": None, "a": "x"}, {"q": "y", "a": "x"}]
    source = loaded("a.jsonl", rows, template={"prompt": "{{ q }}", "response": "{{ a }}"})
    assert len(source.examples) == 1
    assert "null" in source.drops[0].reason
    attack = {"prompt": "{{ q.__class__.__mro__ }}", "response": "{{ a }}"}
    assert loaded("a.jsonl", rows[1:], template=attack).drops


@pytest.mark.parametrize(
    "options",
    [
        {"columns": {"prompt": "questoin", "response": "answer"}},
        {"template": {"prompt": "{{ questoin }}", "response": "{{ answer }}"}},
    ],
)
def test_a_column_that_is_not_there_is_an_error_at_once(loaded: Load, options: dict[str, Any]) -> None:
    with pytest.raises(
        DataError, match=r"no column 'questoin' \(did you mean 'question'\?\); its columns: question, answer"
    ):
        loaded("a.jsonl", [{"question": "q", "answer": "a"}], **options)


# -- auto --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("record", "name"),
    [
        (
            {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "prompt": "q"},
            "messages",
        ),
        ({"conversations": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}, "messages"),
        ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, "sharegpt"),
        ({"conversation": [{"human": "q", "assistant": "a"}]}, "sharegpt"),
        ({"instruction": "q", "input": "", "output": "a", "text": "q a"}, "alpaca"),
        ({"instruction": "q", "output": "a"}, "alpaca"),
        ({"prompt": "q", "completion": "a"}, "prompt_response"),
        ({"question": "q", "answer": "a", "id": 3}, "prompt_response"),
        ({"text": "q a", "url": "x"}, "text"),
    ],
)
def test_auto_recognises(loaded: Load, record: dict[str, Any], name: str) -> None:
    source = loaded("a.jsonl", [record] * 3)
    assert source.recognition.format == name
    assert source.recognition.confidence is not None and source.recognition.confidence >= 0.75
    assert len(source.examples) == 3
    shown = str(source.recognition)
    assert name in shown and "recognised" in shown and "q" in shown


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"text": "good", "label": "1"}, "looks like text, but not surely"),
        ({"prompt": "q", "question": "q", "answer": "a"}, "looks like prompt_response, but not surely"),
        ({"instruction": "q", "context": "important", "response": "a"}, "looks like prompt_response, but not surely"),
        ({"sentence": "good", "label": "1"}, "not known.*columns: sentence, label.*template"),
        ({}, "not known"),
    ],
)
def test_auto_asks_when_it_is_not_sure(loaded: Load, record: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        loaded("a.jsonl", [record])


def test_auto_asks_about_a_mixed_file(loaded: Load) -> None:
    with pytest.raises(DataError, match=r"could be alpaca \(0\.50\) or prompt_response \(0\.45\)"):
        loaded("a.jsonl", [{"instruction": "q", "input": "", "output": "a"}, {"question": "q", "answer": "a"}])
