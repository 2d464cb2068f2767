"""A service in front of a service: OpenAI's own client gets the same answers from both."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from chat_server import Cut, Reply, chat_server, delta, events
from serving import SECONDS, SECRET, listening, make, until

from tuneloop.core.errors import ModelError, RecipeError
from tuneloop.flows import serving
from tuneloop.generate.live import Ask
from tuneloop.generate.upstream import UpstreamEngine
from tuneloop.serve.adapters import Roster
from tuneloop.serve.auth import Doorkeeper
from tuneloop.serve.config import ServeConfig
from tuneloop.serve.service import Service
from tuneloop.store import store

openai = pytest.importorskip("openai")
HELLO: Any = [{"role": "user", "content": "hello there"}]
TOOL: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "")


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """`front(url)`: the URL of a service that stands in front of another."""
    with ExitStack() as stack:

        def make_one(url: str, **config: Any) -> str:
            engine = UpstreamEngine(url)
            kept = store.open(f"sqlite:///{tmp_path}/front.db", SECRET)
            settings = ServeConfig.model_validate({"port": 0, **config})
            roster = Roster(engine, engine.models()[0].name)
            service = Service(settings, engine, roster, kept, Doorkeeper(kept, open_to_all=True), None, tmp_path)
            return stack.enter_context(listening(service))[0]

        yield make_one


@pytest.fixture
def both(front: Any, tmp_path: Path) -> Iterator[Any]:
    """`both(answer)`: (OpenAI's client of a service, its client of the one in front of it, the engine behind)."""
    with ExitStack() as stack:

        def make_both(answer: Callable[[Ask], str]) -> Any:
            (tmp_path / "behind").mkdir()
            service, engine = make(tmp_path / "behind", answer)
            url = stack.enter_context(listening(service))[0]
            stack.callback(engine.resume)
            clients = [openai.OpenAI(base_url=f"{one}/v1", api_key="x", max_retries=0) for one in (url, front(url))]
            return *clients, engine

        yield make_both


def said(client: Any, stream: bool, **fields: Any) -> Any:
    """All that an answer says: text, calls, end, logprobs, usage."""
    asked: dict[str, Any] = {"model": "toy", "messages": HELLO, **fields}
    if not stream:
        answer = client.chat.completions.create(**asked)
        found = [
            (
                one.message.content or "", [call.function.model_dump() for call in one.message.tool_calls or ()],
                one.finish_reason, [token.model_dump() for token in (one.logprobs.content if one.logprobs else ())],
            )
            for one in answer.choices
        ]  # fmt: skip
        return found, answer.usage.model_dump()
    texts, calls, ends, logprobs, usage = {}, {}, {}, {}, None
    for chunk in client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for one in chunk.choices:
            texts[one.index] = texts.get(one.index, "") + (one.delta.content or "")
            calls.setdefault(one.index, []).extend(call.function.model_dump() for call in one.delta.tool_calls or ())
            logprobs.setdefault(one.index, []).extend(
                t.model_dump() for t in (one.logprobs.content if one.logprobs else ())
            )
            ends[one.index] = one.finish_reason or ends.get(one.index)
    return [(texts[n], calls[n], ends[n], logprobs[n]) for n in sorted(texts)], usage.model_dump()


def answer(ask: Ask) -> str:
    if ask.request.tools:
        return 'Let me look.\n<tool_call>\n{"name": "weather", "arguments": {"town": "北京"}}\n</tool_call>'
    if ask.schema is not None:
        return json.dumps({"schema": ask.schema})
    seed = ask.request.seed if ask.decoding.temperature else "greedy"
    return f"{ask.request.messages[-1].content}: 你好 {seed} STOP it"


WISHES: list[dict[str, Any]] = [
    {},
    {"max_tokens": 3},
    {"stop": "STOP"},
    {"logprobs": True, "top_logprobs": 1},
    {"temperature": 0.5, "n": 3, "seed": 11},
    {"response_format": {"type": "json_object"}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}},
    {"tools": [TOOL]},
]  # fmt: skip


@pytest.mark.parametrize("wish", WISHES, ids=lambda wish: ",".join(wish) or "nothing")
def test_the_same_answers_from_both_streamed_or_not(both: Any, wish: dict[str, Any]) -> None:
    direct, proxied, engine = both(answer)
    expected = said(direct, False, **wish)
    for stream in (False, True):
        found = said(proxied, stream, **wish)
        assert found[0] == expected[0]
        if "n" not in wish:  # behind are as many requests, each with the prompt
            assert found[1] == expected[1]
    assert len(expected[0]) == wish.get("n", 1)
    assert engine.asked[-1].request.messages[-1].content == "hello there"


def test_prose_and_refusals_pass_through(both: Any) -> None:
    direct, proxied, _ = both(lambda ask: f"after {ask.request.messages[0].content}")
    for client in (direct, proxied):
        assert client.completions.create(model="toy", prompt="a", max_tokens=5).choices[0].text == "after a"
        chunks = client.completions.create(model="toy", prompt="a", stream=True, logprobs=1)
        assert [t for c in chunks if c.choices[0].logprobs for t in c.choices[0].logprobs.text_offset] == [0, 5]
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="other", messages=HELLO)
    with pytest.raises(openai.BadRequestError, match="at most 4096"):
        # the one in front allows more than the one behind
        url = str(proxied.base_url)
        wide = openai.OpenAI(base_url=url, api_key="x", max_retries=0)
        wide.chat.completions.create(model="toy", messages=HELLO, max_tokens=5000)


def test_a_client_that_leaves_frees_the_service_behind(both: Any) -> None:
    _, proxied, engine = both(lambda ask: "word " * 5000)
    engine.pause()
    url, body = proxied.base_url, json.dumps({"model": "toy", "messages": HELLO, "stream": True}).encode()
    head = f"POST {url.path}chat/completions HTTP/1.1\r\nHost: {url.host}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((url.host, url.port), SECONDS) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        until(lambda: engine.asked)
    until(lambda: len(engine.cancelled) == 1)


FAULTS: dict[str, tuple[Callable[[], Reply], int]] = {
    "busy": (lambda: (429, {"error": {"message": "full"}}, {"Retry-After": "7"}), 429),
    "fault": (lambda: (500, "SECRET words"), 500),
    "cut": (lambda: (200, events(delta("Hi"), Cut())), 500),
    "refused": (lambda: (400, {"error": {"message": "too long"}}), 400),
    "away": (lambda: (0, ""), 503),
    "away behind a proxy": (lambda: (502, "SECRET words"), 503),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("what", FAULTS)
def test_faults_behind_are_told_and_logged(
    front: Any, what: str, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    reply, status = FAULTS[what]
    with chat_server(lambda path, body: reply()) as server, caplog.at_level(logging.ERROR, "tuneloop.serve"):
        client = openai.OpenAI(base_url=f"{front(server.url)}/v1", api_key="x", max_retries=0)
        if status == 503:
            server.models = reply()
        with pytest.raises(openai.APIError) as found:
            answer = client.chat.completions.create(model="m", messages=HELLO, stream=stream)
            assert stream and "".join(chunk.choices[0].delta.content or "" for chunk in answer) == ""
        if not (stream and what == "cut"):  # there the answer has begun, and an event says it
            assert found.value.status_code == status
        if what == "busy":
            assert found.value.response.headers["Retry-After"] == "7"
        assert "SECRET" not in str(found.value) and server.url not in str(found.value)
        assert "SECRET" not in caplog.text
        if status == 503:  # not our fault, and OpenAI's client comes again by itself
            assert found.value.code == "engine_away" and int(found.value.response.headers["Retry-After"]) >= 1
        assert any(server.url in record.getMessage() for record in caplog.records) == (status >= 500)


def test_settings_for_a_server_need_one(tmp_path: Path) -> None:
    config = serving.settings(None, ["serve.upstream.model=m"])
    with pytest.raises(RecipeError, match="tuneloop serve URL"):
        serving._engine("latest", tmp_path, config, {})
    config_of_files = serving.settings(None, ["serve.engine=llama_cpp"])
    with pytest.raises(RecipeError, match=r"serve\.engine is for a model in this process"):
        serving._engine("http://127.0.0.1:1", tmp_path, config_of_files, {})
    fewer = serving.settings(None, ["serve.quantize.scheme=int8"])
    with pytest.raises(RecipeError, match=r"serve\.quantize\.scheme is for a model"):
        serving._engine("http://127.0.0.1:1", tmp_path, fewer, {})
    with pytest.raises(ModelError, match=r"serves a \.gguf file"):
        serving._engine("latest", tmp_path, config_of_files, {})
    with chat_server(lambda path, body: (404, "")) as server:
        name, engine, inside, _ = serving._engine(server.url, tmp_path, config, {})
        assert (name, inside) == ("m", "m")
        engine.close()
