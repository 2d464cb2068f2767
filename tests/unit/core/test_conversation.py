from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.core import jsonl
from tuneloop.core.conversation import Drop, Example, Message, Origin, ToolCall, dump_all
from tuneloop.core.errors import DataError

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | numbers | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(words, values, max_size=3)
calls = st.builds(ToolCall, name=words, arguments=values, id=st.none() | words)
messages = st.builds(
    Message,
    role=st.sampled_from(["system", "user", "assistant", "tool", "text"]),
    content=words,
    reasoning=st.none() | words,
    tool_calls=st.lists(calls, max_size=2).map(tuple),
    tool_call_id=st.none() | words,
    train=st.none() | st.floats(0, 2),
)
origins = st.builds(Origin, source=words, row=st.integers(0, 10**9), parents=st.lists(words, max_size=2).map(tuple))
examples = st.builds(
    Example,
    messages=st.lists(messages, min_size=1, max_size=4).map(tuple),
    origin=origins,
    tools=st.lists(objects, max_size=2).map(tuple),
    meta=objects,
)
SOMEWHERE = Origin("a.jsonl", 0)


def chat(*roles: str, **changes: Any) -> Example:
    return Example(tuple(Message(role, f"{role} {i}") for i, role in enumerate(roles)), SOMEWHERE, **changes)  # type: ignore[arg-type]


@given(examples)
def test_what_is_written_reads_back_equal(example: Example) -> None:
    line = jsonl.dump(example.to_json())
    back = Example.from_json(jsonl.parse(line))
    assert back == example
    assert back.id == example.id
    assert b"\n" not in line


@given(st.lists(examples, max_size=4), st.lists(words | st.text('",\\\n\ud800a', max_size=4), max_size=150))
def test_dumped_examples_are_their_json_with_their_ids(some: list[Example], said: list[str]) -> None:
    plain = [
        Example(
            (Message("user", one), Message("assistant", said[-1])), Origin(one, row), meta={"a": one} if row % 2 else {}
        )
        for row, one in enumerate(said)
    ]
    wanted = [jsonl.dump(one.to_json()) for one in (*some, *plain)]
    fresh = [Example(one.messages, one.origin, one.tools, one.meta, one.rejected) for one in (*some, *plain)]
    assert dump_all(fresh) == wanted == dump_all(fresh)
    assert [one.id for one in fresh] == [one.id for one in (*some, *plain)]


@given(examples, origins, objects)
def test_the_id_is_the_content_and_not_where_it_came_from(example: Example, origin: Origin, meta: dict) -> None:
    assert Example(example.messages, origin, example.tools, meta).id == example.id


@pytest.mark.parametrize(
    "other",
    [
        Message("assistant", "Paris."),
        Message("user", "Paris"),
        Message("assistant", "Paris", reasoning="France"),
        Message("assistant", "Paris", train=0.0),
        Message("assistant", "Paris", tool_calls=(ToolCall("look", {}),)),
    ],
)
def test_the_id_tells_apart_what_is_trained_differently(other: Message) -> None:
    first = Example((Message("assistant", "Paris"),), SOMEWHERE)
    assert first.id != Example((other,), SOMEWHERE).id


def test_tools_belong_to_the_id_and_the_order_of_their_keys_does_not() -> None:
    one, same, other = ({"name": "f", "n": 1}, {"n": 1, "name": "f"}, {"name": "g", "n": 1})
    assert chat("user", tools=(one,)).id == chat("user", tools=(same,)).id
    assert chat("user", tools=(one,)).id not in (chat("user", tools=(other,)).id, chat("user").id)


def test_weights_are_one_for_the_assistant_unless_they_are_given() -> None:
    assert [message.weight for message in chat("system", "user", "assistant", "tool", "text").messages] == [
        0,
        0,
        1,
        0,
        0,
    ]
    assert Message("user", "hi", train=0.5).weight == 0.5
    assert Message("assistant", "hi", train=0.0).weight == 0


def test_prompt_and_answer_meet_at_the_last_supervised_message() -> None:
    example = chat("user", "assistant", "user", "assistant", "user")
    assert example.answer.content == "assistant 3"
    assert [message.content for message in example.prompt] == ["user 0", "assistant 1", "user 2"]


def test_an_example_without_an_answer_says_which_row_it_is() -> None:
    with pytest.raises(DataError, match=r"a\.jsonl, row 0.* no supervised message"):
        _ = chat("user").answer


def test_an_unknown_role_names_the_known_ones() -> None:
    with pytest.raises(DataError, match="unknown role 'human'; known: system, user, assistant, tool, text"):
        Message.from_json({"role": "human", "content": "hi"})


def test_tool_schemas_and_arguments_survive_exactly() -> None:
    schema = {"type": "function", "function": {"name": "f", "parameters": {"anyOf": [{"type": "null"}, {}], "n": 1.0}}}
    call = ToolCall("f", {"a": None, "n": 12345678901234567890, "x": 1.0}, "call_1")
    example = Example((Message("assistant", "", tool_calls=(call,)),), SOMEWHERE, (schema,))
    back = Example.from_json(jsonl.parse(jsonl.dump(example.to_json())))
    assert json.dumps(back.tools[0]) == json.dumps(schema)
    assert json.dumps(back.messages[0].tool_calls[0].arguments) == json.dumps(call.arguments)


def test_a_drop_holds_an_example_or_the_raw_row() -> None:
    whole = Drop(chat("user"), "length", "too long", SOMEWHERE, {"words": 9}).to_json()
    assert whole["example"] == chat("user").to_json()
    raw = Drop({"q": "?"}, "alpaca", "no output", Origin("a.jsonl", 7)).to_json()
    assert raw == {
        "example": {"q": "?"}, "step": "alpaca", "reason": "no output", "origin": {"source": "a.jsonl", "row": 7},
        "evidence": {},
    }  # fmt: skip
