"""Options of the formats: columns, keys and roles under other names, and columns that are not to be read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from tuneloop.data.formats import FORMATS

CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}


def parse(choice: dict[str, Any], record: dict[str, Any]) -> Any:
    return FORMATS.make(choice).parse(record)


def said(parts: Any) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in parts.messages]


@pytest.mark.parametrize("name", ["messages", "sharegpt"])
def test_turns_under_other_names(name: str) -> None:
    record = {
        "dialog": [{"who": "customer", "says": "q"}, {"who": "客服", "says": "a"}],
        "messages": [{"role": "user", "content": "not this"}],
        "prompt": "s",
        "system": "not this",
        "functions_json": json.dumps([{"name": "f"}]),
    }
    options = {
        "column": "dialog", "role": "who", "content": "says", "roles": {"customer": "user", "客服": "assistant"},
        "system": "prompt", "tools": "functions_json",
    }  # fmt: skip
    parts = parse({name: options}, record)
    assert said(parts) == [("system", "s"), ("user", "q"), ("assistant", "a")]
    assert parts.tools == ({"name": "f"},)
    assert parts.meta == {"messages": record["messages"], "system": "not this"}


@pytest.mark.parametrize("name", ["messages", "sharegpt"])
def test_columns_that_are_not_to_be_read_are_meta(name: str) -> None:
    turns = [{"role": "user", "content": "q", "from": "human", "value": "q"}]
    record = {"messages": turns, "system": "s", "tools": [{"name": "f"}]}
    parts = parse({name: {"system": None, "tools": None}}, record)
    assert said(parts) == [("user", "q")]
    assert (parts.tools, parts.meta) == ((), {"system": "s", "tools": [{"name": "f"}]})


def test_a_role_of_ones_own_goes_before_the_usual_meaning() -> None:
    turns = [{"role": "function", "content": json.dumps({"name": "f", "arguments": {}})}]
    assert said(parse({"messages": {}}, {"messages": turns}))[0][0] == "tool"
    (message,) = parse({"messages": {"roles": {"function": "function_call"}}}, {"messages": turns}).messages
    assert (message.role, message.tool_calls[0].name) == ("assistant", "f")


def test_an_unknown_role_is_an_error_of_the_recipe() -> None:
    with pytest.raises(ValidationError, match=r"'agent' is to be 'asistant', .* role \(did you mean 'assistant'"):
        FORMATS.make({"messages": {"roles": {"agent": "asistant"}}})


def test_alpaca_columns() -> None:
    record = {"q": "i", "input": "n", "a": "o", "sys": "s", "h": [["q1", "a1"]], "t": [{"name": "f"}]}
    options = {"instruction": "q", "input": None, "output": "a", "system": "sys", "history": "h", "tools": "t"}
    parts = parse({"alpaca": options}, record)
    assert said(parts) == [("system", "s"), ("user", "q1"), ("assistant", "a1"), ("user", "i"), ("assistant", "o")]
    assert (parts.tools, parts.meta) == (({"name": "f"},), {"input": "n"})


def test_turns_and_calls_as_json_text() -> None:
    """How Parquet files of the library `datasets` hold values of mixed types."""
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": [json.dumps(CALL)]}]
    for written in (turns, [json.dumps(turn) for turn in turns], json.dumps(turns)):
        parts = parse({"messages": {}}, {"messages": written})
        assert parts.messages[1].tool_calls[0].arguments == {"x": 1}
