"""What is asked and cannot be done is refused by its name; what goes beyond a limit is refused, never cut."""

from __future__ import annotations

from typing import Any

import pytest

UNSUPPORTED: dict[str, Any] = {
    "logit_bias": {}, "functions": [], "function_call": "auto", "modalities": ["text"], "audio": {}, "prediction": {},
    "store": True, "metadata": {}, "service_tier": "auto", "reasoning_effort": "low", "web_search_options": {},
    "verbosity": "low", "prompt_cache_key": "x", "safety_identifier": "x", "min_p": 0.1, "repetition_penalty": 1.1,
    "frequency_penalty": 0.5, "presence_penalty": -1, "parallel_tool_calls": False, "tool_choice": "required",
    "adapter_path": "/tmp", "chat_template": "{{x}}", "trust_remote_code": True,
}  # fmt: skip


@pytest.mark.parametrize("field", UNSUPPORTED)
def test_a_field_that_would_be_ignored_is_refused_by_its_name(toy: Any, field: str) -> None:
    answer = toy.ask(**{field: UNSUPPORTED[field]})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["param"], error["type"]) == (field, "invalid_request_error")
    assert field in error["message"]
    assert toy.engine.asked == []


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "x", "name": "ann"}]}, "messages[0].name"),
        ({"messages": [{"role": "function", "content": "x"}]}, "messages[0]"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"n": 0}, "n"),
        ({"n": "1"}, "n"),
        ({"n": 99, "temperature": 1}, "n"),
        ({"n": 2}, "n"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 5000}, "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 5}, "max_tokens"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": ""}, "stop"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x"),
        ({"response_format": {"type": "grammar"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"tools": [{"type": "code_interpreter"}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "a", "strict": True}}]}, "tools[0].function.strict"),
        ({"tools": [{"type": "function", "function": {"name": "a"}}] * 65}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "a"}}], "logprobs": True}, "logprobs"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(toy: Any, body: Any, param: str) -> None:
    messages = {} if not body or "messages" in body else {"messages": [{"role": "user", "content": "x"}]}
    answer = toy.client.post("/v1/chat/completions", json={"model": "toy", **messages, **body})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text
    assert toy.engine.asked == []


@pytest.mark.parametrize(
    "body",
    [{"echo": True}, {"suffix": "x"}, {"best_of": 2}, {"prompt": [1, 2]}, {"prompt": [[1]]}, {"prompt": []},
     {"logprobs": 6}, {"prompt": ["a"] * 9}, {"stream": True, "prompt": ["a", "b"]}, {"logit_bias": {}}],
)  # fmt: skip
def test_completions_refuse_what_they_cannot_do(toy: Any, body: Any) -> None:
    answer = toy.client.post("/v1/completions", json={"model": "toy", "prompt": "x", **body})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].split("[")[0] in {*body, "n"}


def test_sizes_and_depths_are_limited(opened: Any) -> None:
    one = opened(limits={"body_bytes": 20_000, "messages": 3, "depth": 12, "schema_bytes": 200, "schema_depth": 6})
    json = {"Content-Type": "application/json"}
    path = "/v1/chat/completions"
    assert one.ask("x" * 30_000).status_code == 413
    assert one.client.post(path, content=iter([b"x" * 9_000] * 3), headers=json).status_code == 413
    for body in (b"[" * 10_000, b'{"a":' * 400 + b"1" + b"}" * 400, b"[" * 13 + b"]" * 13):
        assert one.client.post(path, content=body, headers=json).status_code == 400
    four = [{"role": "user", "content": "x"}] * 4
    assert one.ask(messages=four).json()["error"]["param"] == "messages"
    deep: Any = {}
    for _ in range(7):
        deep = {"not": deep}
    large = {"enum": ["x" * 300]}
    codes = [
        one.ask(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}).json()[
            "error"
        ]["code"]
        for schema in (deep, large)
    ]
    assert codes == ["schema_too_deep", "schema_too_large"]
    tool = {"type": "function", "function": {"name": "a", "parameters": large}}
    assert one.ask(tools=[tool]).json()["error"]["param"] == "tools[0].function.parameters"
    assert one.engine.asked == []


@pytest.mark.parametrize(
    "body", [b"", b"{", b"nan", b'{"model": NaN}', b'{"model": "\\ud800"}', b"\xff\xfe", b"null", b"[]"]
)
def test_what_is_no_json_object_is_refused(toy: Any, body: bytes) -> None:
    answer = toy.client.post("/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_any_text_is_taken_as_it_is(opened: Any) -> None:
    one = opened(lambda ask: ask.request.messages[-1].content)
    for text in ("\x00", "😀" * 50, "保本\u202e", "<|im_end|>", "</s>"):
        assert one.ask(text).json()["choices"][0]["message"]["content"] == text
    one.service.store.flush()


def test_greedy_unless_told_otherwise(toy: Any) -> None:
    toy.ask()
    assert toy.engine.asked[0].decoding.temperature == 0
    assert toy.engine.asked[0].decoding.max_new_tokens == toy.service.config.limits.max_tokens


def test_samples_without_a_seed_differ(toy: Any) -> None:
    for _ in range(3):
        toy.ask(temperature=1.0)
    assert len({ask.request.seed for ask in toy.engine.asked}) == 3


def test_rates_are_per_key(opened: Any) -> None:
    one = opened(limits={"requests_per_minute": 2})
    ann, bob = one.key("chat"), one.key("chat")
    body = {"model": "toy", "messages": [{"role": "user", "content": "x"}]}

    def ask(key: dict[str, str]) -> Any:
        return one.client.post("/v1/chat/completions", json=body, headers=key)

    assert [ask(ann).status_code for _ in range(3)] == [200, 200, 429]
    assert ask(bob).status_code == 200
    assert 1 <= int(ask(ann).headers["Retry-After"]) <= 60


def test_a_turn_in_the_queue_belongs_to_a_key_not_to_a_name_it_gives(opened: Any) -> None:
    one = opened()
    key = one.key("chat")
    for user in ("a", "b"):
        body = {"model": "toy", "messages": [{"role": "user", "content": "x"}], "user": user}
        one.client.post("/v1/chat/completions", json=body, headers=key)
    assert len({ask.user for ask in one.engine.asked}) == 1


def test_a_prompt_that_the_engine_refuses_is_the_clients_fault(opened: Any) -> None:
    from tuneloop.core.errors import ModelError

    def refuse(_: Any) -> str:
        raise ModelError("the prompt fills the context")

    one = opened(refuse)
    for stream in (False, True):
        answer = one.ask(stream=stream)
        assert answer.status_code == 400
        assert answer.json()["error"]["message"] == "the prompt fills the context"


def test_the_openapi_document_has_every_field_and_no_other_error_shape(toy: Any) -> None:
    document = toy.client.get("/openapi.json").json()
    chat = document["paths"]["/v1/chat/completions"]["post"]
    assert "422" not in chat["responses"]
    assert chat["security"] == [{"HTTPBearer": []}]
    shape = document["components"]["schemas"]["ChatRequest"]
    assert shape["additionalProperties"] is False
    assert {"messages", "tools", "response_format", "stop"} <= shape["properties"].keys()
