from __future__ import annotations

import socket
import threading
import time
from typing import Any, Literal

import pytest
from chat_server import Reply, chat_server, said

from tuneloop.core.conversation import Message, ToolCall
from tuneloop.core.errors import ModelError
from tuneloop.generate import endpoint
from tuneloop.generate.engine import Completion, Decoding, Engine, Request
from tuneloop.generate.openai_engine import OpenAIEngine

GREEDY = Decoding(9)
TOOL = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "FIRST_WAIT", 0.001)
    monkeypatch.setenv("OPENAI_API_KEY", "")


def ask(*texts: str) -> list[Request]:
    return [Request((Message("user", text),)) for text in texts]


def echo(path: str, body: dict[str, Any]) -> Reply:
    return said(body["messages"][-1]["content"].upper())


def test_answers_come_in_order_whatever_the_servers_order() -> None:
    def slow_first(path: str, body: dict[str, Any]) -> Reply:
        time.sleep(0.05 if body["messages"][-1]["content"] == "t0" else 0)
        return echo(path, body)

    with chat_server(slow_first) as server:
        engine: Engine = OpenAIEngine(server.url, "m", concurrency=4)
        told: dict[int, Completion] = {}
        found = engine.answer(ask(*(f"t{i}" for i in range(40))), GREEDY, told.__setitem__)
        assert [one.text for one in found] == [f"T{i}" for i in range(40)]
        assert [told[i] for i in range(40)] == found
        assert all(one.finished and one.ids == () and one.refused is None for one in found)
        assert 1 < server.most_at_once <= 4
        assert engine.answer([], GREEDY) == []


def test_what_goes_over_the_wire() -> None:
    messages = (
        Message("system", "be brief"),
        Message("user", "weather?"),
        Message(
            "assistant", "", reasoning="hm", tool_calls=(ToolCall("weather", {"city": "成都"}), ToolCall("x", "raw"))
        ),
        Message("tool", "20 °C"),
        Message("tool", "ok"),
    )
    with chat_server(lambda path, body: said("warm")) as server:
        OpenAIEngine(server.url, "m").answer([Request(messages, (TOOL,))], GREEDY)
        ((path, body, headers),) = server.asked
    assert path == "/v1/chat/completions" and "Authorization" not in headers
    call, other = body["messages"][2]["tool_calls"]
    assert (
        call["function"] == {"name": "weather", "arguments": '{"city": "成都"}'}
        and other["function"]["arguments"] == "raw"
    )
    assert [message["tool_call_id"] for message in body["messages"][3:]] == [call["id"], other["id"]]
    assert call["id"] != other["id"] and "reasoning_content" not in body["messages"][2]
    assert body["tools"] == [{"type": "function", "function": TOOL}]
    assert {key: body[key] for key in ("model", "max_tokens", "temperature")} == {
        "model": "m", "max_tokens": 9, "temperature": 0,
    }  # fmt: skip
    assert "seed" not in body and "top_p" not in body


def test_samples_are_seeds() -> None:
    with chat_server(echo) as server:
        requests = [Request((Message("user", "a"),), seed=seed) for seed in (3, 4)]
        OpenAIEngine(server.url, "m").answer(requests, Decoding(5, temperature=0.7, top_p=0.9, top_k=40))
        sent = sorted((body["seed"], body["temperature"], body["top_p"], body["top_k"]) for _, body, _ in server.asked)
    assert sent == [(3, 0.7, 0.9, 40), (4, 0.7, 0.9, 40)]


WANTED = {"top_p": 0.8, "top_k": 20, "min_p": 0.05, "repetition_penalty": 1.05, "repeat_penalty": 1.0}
"""What vLLM and SGLang take from a model's generation_config.json where a request leaves it out (Qwen's, say)."""
PLAIN = {"top_p": [1], "top_k": [-1, 0], "min_p": [0], "repetition_penalty": [1], "repeat_penalty": [1]}


@pytest.mark.parametrize("owner", ["vllm", "sglang", "llamacpp", "openai"])
@pytest.mark.parametrize("role", ["user", "text"])
def test_a_servers_own_ideas_of_sampling_are_left_out(owner: str, role: Literal["user", "text"]) -> None:
    """Before, a model behind vLLM was measured with the penalty on repetitions of its generation_config.json."""
    ideas = {key: WANTED[key] for key in WANTED if owner != "llamacpp" or key != "repetition_penalty"}

    def answer(path: str, body: dict[str, Any]) -> Reply:
        if owner == "openai" and (unknown := (body.keys() & WANTED) - {"top_p"}):
            return 400, {"error": {"message": f"Unrecognized request arguments: {unknown}"}}
        meant = {**({} if owner == "openai" else ideas), **body}
        text = "bent" if any(meant.get(key, value[0]) not in value for key, value in PLAIN.items()) else "plain"
        return said(text) if role == "user" else (200, {"choices": [{"text": text, "finish_reason": "stop"}]})

    with chat_server(answer, (200, {"data": [{"id": "m", "owned_by": owner}]})) as server:
        engine = OpenAIEngine(server.url, "m")
        requests = [Request((Message(role, text),)) for text in ("a", "b")]
        assert [one.text for one in engine.answer(requests, GREEDY)] == ["plain", "plain"]
        engine.answer(requests, Decoding(5, temperature=0.7, top_p=0.9))
        assert {body["top_p"] for _, body, _ in server.asked[2:]} == {0.9}


def test_which_server_it_is_can_be_said_and_is_part_of_its_identity() -> None:
    """Of what is behind a proxy, the list of models tells nothing; kept answers must not outlive the change."""
    with chat_server(echo) as server:
        engines = [OpenAIEngine(server.url, "m", dialect=dialect) for dialect in ("auto", "openai", "vllm")]
        assert all(engine.answer(ask("a"), GREEDY)[0].text == "A" for engine in engines)
        assert ["min_p" in body for _, body, _ in server.asked] == [False, False, True]
        first, second, third = (engine.identity for engine in engines)
        assert first == second != third


def test_a_key_that_is_good_for_answers_alone_is_good_enough() -> None:
    for status in (401, 403, 405):
        with chat_server(echo, models=(status, {"error": {"message": "missing scope"}})) as server:
            assert OpenAIEngine(server.url, "m").answer(ask("a"), GREEDY)[0].text == "A"


def test_prose_is_completed_and_not_chatted() -> None:
    with chat_server(lambda path, body: (200, {"choices": [{"text": " Paris", "finish_reason": "length"}]})) as server:
        (found,) = OpenAIEngine(server.url, "m").answer([Request((Message("text", "The capital is"),))], GREEDY)
        ((path, body, _),) = server.asked
    assert path == "/v1/completions" and body["prompt"] == "The capital is"
    assert found == Completion((), " Paris", False)


def test_tool_calls_are_read_broken_arguments_too() -> None:
    calls = [
        {"id": "a", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}},
        {"id": "b", "type": "function", "function": {"name": "weather", "arguments": '{"city": '}},
    ]
    with chat_server(lambda path, body: said(None, "tool_calls", tool_calls=calls)) as server:
        (found,) = OpenAIEngine(server.url, "m").answer(ask("?"), GREEDY)
    assert found.text == "" and found.finished
    assert found.calls == (ToolCall("weather", {"city": "Rome"}, "a"), ToolCall("weather", '{"city": ', "b"))


def test_the_key_comes_from_the_named_variable_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWN_KEY", "s3cret")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")  # would fail if it were used
    with chat_server(echo) as server:
        OpenAIEngine(server.url, "m", key_env="OWN_KEY").answer(ask("a"), GREEDY)
        assert server.asked[0][2]["Authorization"] == "Bearer s3cret"


@pytest.mark.parametrize("failure", [(429, {}, {"Retry-After": "0"}), (503, "busy"), (500, {}), (0, "")])
def test_tries_again_where_that_may_help(failure: Reply) -> None:
    failures = iter([failure] * 2)
    with chat_server(lambda path, body: next(failures, None) or echo(path, body)) as server:
        (found,) = OpenAIEngine(server.url, "m").answer(ask("a"), GREEDY)
        assert found.text == "A" and len(server.asked) == 3


def test_gives_up_after_a_number_of_tries() -> None:
    with chat_server(lambda path, body: (503, {"error": {"message": "overloaded"}})) as server:
        with pytest.raises(ModelError, match=r"answered 503 6 times: overloaded"):
            OpenAIEngine(server.url, "m").answer(ask("a"), GREEDY)
        assert len(server.asked) == endpoint.TRIES


def test_a_slow_answer_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "TRIES", 2)
    over = threading.Event()

    def late(path: str, body: dict[str, Any]) -> Reply:
        over.wait(5)
        return 0, ""

    with chat_server(late) as server:
        with pytest.raises(ModelError, match="failed 2 times, last by ReadTimeout"):
            OpenAIEngine(server.url, "m", timeout=0.05).answer(ask("a"), GREEDY)
        over.set()


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (
            (401, {"error": {"message": "bad key"}}),
            "it wants a key: put it into the environment variable OPENAI_API_KEY",
        ),
        ((404, {"error": {"message": "no such model"}}), "has no model 'nano'; it has: m"),
        ((403, "forbidden"), "answered 403: forbidden"),
        ((307, "", {"Location": "http://127.0.0.1:1/"}), r"redirects to http://127.0.0.1:1/, which is not followed"),
        ((429, {"error": {"code": "insufficient_quota", "message": "pay"}}), "has no quota left"),
        ((200, "<html>"), "is this an OpenAI-compatible server"),
        ((200, {"choices": []}), "answers in another shape"),
    ],
)
def test_errors_say_what_to_do_and_are_not_tried_again(reply: Reply, message: str) -> None:
    with chat_server(lambda path, body: reply) as server:
        with pytest.raises(ModelError, match=message):
            OpenAIEngine(server.url, "nano").answer(ask("a"), GREEDY)
        assert len(server.asked) == 1


def test_a_wrong_path_and_a_wrong_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "old")
    nothing: Reply = (404, "not found")
    with (
        chat_server(lambda path, body: nothing, models=nothing) as server,
        pytest.raises(ModelError, match="is the address right"),
    ):
        OpenAIEngine(server.url, "m").answer(ask("a"), GREEDY)
    with (
        chat_server(lambda path, body: (401, "no")) as server,
        pytest.raises(ModelError, match=r"does not accept the key in \$OPENAI_API_KEY"),
    ):
        OpenAIEngine(server.url, "m").answer(ask("a"), GREEDY)


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ModelError, match=r"no server answers at .*/v1 .* Start it, e\.g\. `vllm serve m`"):
        OpenAIEngine(url, "m").answer(ask("a"), GREEDY)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host/v1", "http://user:key@host/v1", "http://host/v1?key=1"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(ModelError):
        OpenAIEngine(url, "m")


def test_one_refused_request_is_refused_alone() -> None:
    def strict(path: str, body: dict[str, Any]) -> Reply:
        long = len(body["messages"][-1]["content"]) > 5
        return (400, {"error": {"message": "maximum context length is 5"}}) if long else echo(path, body)

    with chat_server(strict) as server:
        first, second = OpenAIEngine(server.url, "m").answer(ask("too long", "a"), GREEDY)
        assert first.refused == "maximum context length is 5" and second.text == "A"
        with pytest.raises(ModelError, match="refuses every request: maximum context length"):
            OpenAIEngine(server.url, "m", concurrency=2).answer(ask(*["too long"] * 50), GREEDY)
        assert len(server.asked) < 15


def test_a_model_that_names_the_limit_otherwise() -> None:
    def newer(path: str, body: dict[str, Any]) -> Reply:
        if "max_tokens" in body:
            return 400, {"error": {"message": "'max_tokens' is not supported; use 'max_completion_tokens' instead."}}
        return said(str(body["max_completion_tokens"]))

    with chat_server(newer) as server:
        engine = OpenAIEngine(server.url, "m", concurrency=1)
        assert [one.text for one in engine.answer(ask("a", "b"), GREEDY)] == ["9", "9"]
        assert len(server.asked) == 3


def test_identity_is_the_served_model_and_nothing_that_changes_by_itself() -> None:
    def listed(root: str, created: int) -> Reply:
        return 200, {"data": [{"id": "m", "root": root, "created": created, "permission": [{"id": str(created)}]}]}

    with chat_server(echo, listed("a", 1)) as server:
        first = OpenAIEngine(server.url, "m").identity
        server.models = listed("a", 2)
        assert OpenAIEngine(server.url, "m").identity == first
        server.models = listed("b", 2)
        assert OpenAIEngine(server.url, "m").identity != first
        server.models = (404, "")
        assert OpenAIEngine(server.url, "m").identity


def test_an_error_stops_the_others() -> None:
    with chat_server(lambda path, body: (401, "no")) as server:
        with pytest.raises(ModelError):
            OpenAIEngine(server.url, "m", concurrency=3).answer(ask(*map(str, range(100))), GREEDY)
        assert len(server.asked) <= 6
