"""An engine by HTTP: what it asks, what it makes of answers, and of a server that misbehaves in every way."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chat_server import Cut, Reply, chat_server, delta, events
from serving import SECONDS, tune_run, until

from tuneloop.core.conversation import Message, ToolCall
from tuneloop.core.errors import ModelError
from tuneloop.generate import upstream
from tuneloop.generate.config import UpstreamConfig
from tuneloop.generate.engine import Decoding, Request
from tuneloop.generate.live import Ask, Busy, Piece, TokenLogprob, Usage
from tuneloop.generate.upstream import UpstreamEngine

USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}
TOOL: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "")


def ask(text: str = "hello", **fields: Any) -> Ask:
    how = fields.pop("decoding", Decoding(9))
    return Ask(Request((Message("user", text),), fields.pop("tools", ()), fields.pop("seed", 0)), how, "m", **fields)


def whole(text: str = "Hi there") -> Reply:
    return 200, events(delta("", role="assistant"), *map(delta, text), delta(finish="stop"), usage())


def usage() -> dict[str, Any]:
    return {"choices": [], "usage": USAGE}


@contextmanager
def behind(answer: Callable[[str, dict[str, Any]], Reply], models: Any = None, **config: Any) -> Iterator[Any]:
    """(engine, server)"""
    listed = models or (200, {"data": [{"id": "m", "max_model_len": 99}]})
    with chat_server(answer, listed) as server:
        engine = UpstreamEngine(server.url, UpstreamConfig(**config))
        try:
            yield engine, server
        finally:
            engine.close()


class Heard:
    """The pieces of an answer."""

    def __init__(self, engine: UpstreamEngine, ask: Ask) -> None:
        self.pieces: queue.Queue[Piece] = queue.Queue()
        self.told: list[Piece] = []
        self.ticket = engine.submit(ask, self.pieces.put)

    def end(self) -> Piece:
        while not self.told or self.told[-1].finish is None:
            self.told.append(self.pieces.get(timeout=SECONDS))
        assert all(piece.finish is None and piece.usage is None for piece in self.told[:-1])
        return self.told[-1]

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.told)


def hear(engine: UpstreamEngine, one: Ask) -> Heard:
    heard = Heard(engine, one)
    heard.end()
    return heard


def test_an_answer_comes_piece_by_piece_with_its_usage() -> None:
    with behind(lambda path, body: whole()) as (engine, server):
        (base,) = engine.models()
        assert (base.name, base.context, base.adapter) == ("m", 99, None)
        heard = hear(engine, ask())
        assert heard.text == "Hi there" and len(heard.told) == 9
        assert (heard.end().finish, heard.end().usage) == ("stop", Usage(7, 4, 2))
        assert engine.now().tokens == 8 and engine.now().running == 0
        ((path, body, headers),) = server.asked
    assert path == "/v1/chat/completions" and "Authorization" not in headers
    assert body == {
        "model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 9, "temperature": 0,
        "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip


def test_every_wish_goes_over_the_wire() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    how = Decoding(5, 0.7, 0.9, 40)
    with behind(lambda path, body: whole("{}")) as (engine, server):
        hear(engine, ask(decoding=how, seed=3, stop=("END",), schema=schema))
        hear(engine, ask(schema={}))
        hear(engine, ask(tools=(TOOL,)))
        sent = [body for _, body, _ in server.asked]
    assert {key: sent[0][key] for key in ("temperature", "seed", "top_p", "top_k", "stop")} == {
        "temperature": 0.7, "seed": 3, "top_p": 0.9, "top_k": 40, "stop": ["END"],
    }  # fmt: skip
    assert sent[0]["response_format"] == {
        "type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True},
    }  # fmt: skip
    assert sent[1]["response_format"] == {"type": "json_object"}
    assert sent[2]["tools"] == [TOOL]


def test_logprobs_of_a_chat_and_of_prose() -> None:
    top = [{"token": "é", "bytes": [195, 169], "logprob": -0.5}, {"token": "e", "bytes": None, "logprob": -1}]
    content = {"content": [{"token": "é", "bytes": [195, 169], "logprob": -0.5, "top_logprobs": top}]}
    older = {"tokens": ["b"], "token_logprobs": [-0.25], "top_logprobs": [{"b": -0.25}], "text_offset": [0]}

    def answer(path: str, body: dict[str, Any]) -> Reply:
        if path == "/v1/chat/completions":
            assert (body["logprobs"], body["top_logprobs"]) == (True, 2)
            return 200, events(delta("é", logprobs=content), delta(finish="length"))
        assert (body["prompt"], body["logprobs"]) == ("a", 1)
        return 200, events({"choices": [{"text": "b", "finish_reason": "stop", "logprobs": older}]})

    with behind(answer) as (engine, _):
        heard = hear(engine, ask(logprobs=2))
        assert heard.told[0].logprobs == (
            TokenLogprob("é", "é".encode(), -0.5, (("é", "é".encode(), -0.5), ("e", b"e", -1.0))),
        )
        assert heard.end().finish == "length"
        prose = replace(ask(logprobs=1), request=Request((Message("text", "a"),)))
        heard = hear(engine, prose)
        assert (heard.text, heard.told[0].logprobs) == ("b", (TokenLogprob("b", b"b", -0.25, (("b", b"b", -0.25),)),))


def test_reasoning_under_both_of_its_names() -> None:
    with behind(
        lambda path, body: (200, events(delta(reasoning_content="h"), delta(reasoning="m"), delta("!", "stop")))
    ) as (engine, _):
        heard = hear(engine, ask())
    assert ("".join(piece.reasoning for piece in heard.told), heard.text) == ("hm", "!")


def test_tool_calls_are_put_together_and_half_ones_left_out() -> None:
    def call(place: int, arguments: str, **more: Any) -> dict[str, Any]:
        return delta(
            tool_calls=[
                {"index": place, "function": {"arguments": arguments, **more}, **({"id": f"c{place}"} if more else {})}
            ]
        )

    parts = [delta("Look: "), call(0, '{"town": ', name="weather"), call(0, '"北京"}'), call(1, '{"to', name="weather")]
    ends = {"whole": [call(1, 'wn": 1}'), delta(finish="tool_calls")], "cut": [delta(finish="length")]}
    with behind(lambda path, body: (200, events(*parts, *ends[body["messages"][0]["content"]]))) as (engine, _):
        last = hear(engine, ask("whole", tools=(TOOL,))).end()
        assert last.calls == (ToolCall("weather", {"town": "北京"}, "c0"), ToolCall("weather", {"town": 1}, "c1"))
        assert last.finish == "stop"
        last = hear(engine, ask("cut", tools=(TOOL,))).end()
        assert last.calls == (ToolCall("weather", {"town": "北京"}, "c0"),) and last.finish == "length"


BROKEN: dict[str, tuple[Callable[[], Reply], str, str]] = {
    "a connection cut in the middle": (lambda: (200, events(delta("Hi"), Cut())), "error", "broke off"),
    "an end before the end": (lambda: (200, events(delta("Hi"))), "error", "broke off before its end"),
    "no mark of the end either": (lambda: (200, events(delta("Hi"), done=False)), "error", "broke off before its end"),
    "a connection cut at once": (lambda: (0, ""), "error", "RemoteProtocolError"),
    "events that are no JSON": (lambda: (200, events(delta("Hi"), b"data: {oops\n\n")), "error", "no JSON"),
    "events of another shape": (lambda: (200, events({"choices": [{"delta": "x"}]})), "error", "another shape"),
    "text that is none": (lambda: (200, events({"choices": [{"delta": {"content": 5}}]})), "error", "another shape"),
    "a line without end": (lambda: (200, events(b"data: " + b"x" * (2 << 20))), "error", "broke off by SSEError"),
    "no stream": (lambda: (200, {"choices": []}), "error", "no stream of events"),
    "a page": (lambda: (200, "<html>", {"Content-Type": "text/html"}), "error", "text/html"),
    "an error in the stream": (lambda: (200, events({"error": {"message": "gpu", "code": 500}})), "error", "gpu"),
    "a refusal in the stream": (lambda: (200, events({"error": {"message": "long", "code": 400}})), "refused", "long"),
    "a refusal": (lambda: (400, {"error": {"message": "at most 99 tokens"}}), "refused", "at most 99 tokens"),
    "a fault": (lambda: (500, "oops"), "error", "answered 500: oops"),
    "no key": (lambda: (401, "no"), "error", "wants a key"),
    "another model": (lambda: (404, "no"), "error", "is not there"),
    "a redirect": (lambda: (302, "", {"Location": "http://127.0.0.1:1/"}), "error", "not followed"),
    "a filter": (lambda: (200, events(delta("H"), delta(finish="content_filter"))), "refused", "content filter"),
    "an unknown end": (lambda: (200, events(delta("H"), delta(finish="abort"))), "error", "'abort'"),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_nothing_that_is_broken_passes_for_an_answer(what: str) -> None:
    reply, finish, why = BROKEN[what]
    with behind(lambda path, body: reply()) as (engine, server):
        last = hear(engine, ask()).end()
        assert last.finish == finish and why in (last.why or ""), last
        server.answer = lambda path, body: whole()
        assert hear(engine, ask()).text == "Hi there"  # and it goes on


def test_no_room_behind_is_told_with_the_seconds_to_wait_and_not_tried_again() -> None:
    with behind(lambda path, body: (429, {"error": "full"}, {"Retry-After": "7"})) as (engine, server):
        last = hear(engine, ask()).end()
        assert (last.finish, last.retry_after) == ("busy", 7.0)
        assert len(server.asked) == 1


def test_wishes_that_a_server_ignores_are_faults() -> None:
    with behind(lambda path, body: whole("Hello!")) as (engine, _):
        assert "ignores response_format" in (hear(engine, ask(schema={})).end().why or "")
        assert "ignores logprobs" in (hear(engine, ask(logprobs=0)).end().why or "")
    with behind(lambda path, body: whole("[1]")) as (engine, _):
        assert hear(engine, ask(schema={"type": "array"})).end().finish == "stop"
        assert hear(engine, ask(schema={})).end().finish == "error"


def test_whoever_gives_up_closes_the_connection_behind() -> None:
    left, begun = threading.Event(), threading.Event()

    def forever(path: str, body: dict[str, Any]) -> Reply:
        def parts() -> Iterator[bytes]:
            try:
                while True:
                    yield from events(delta("x"), done=False)
                    begun.set()
                    threading.Event().wait(0.005)
            finally:
                left.set()

        return 200, parts()

    with behind(forever, concurrency=1) as (engine, _):
        heard, waits = Heard(engine, ask()), Heard(engine, ask())
        assert begun.wait(SECONDS)
        until(lambda: engine.now().waiting == 1)
        waits.ticket.cancel()
        assert waits.end().finish == "cancelled" and engine.now().running == 1
        heard.ticket.cancel()
        assert heard.end().finish == "cancelled"
        assert left.wait(SECONDS)
        until(lambda: engine.now().running == 0)
        heard.ticket.cancel()  # once more does nothing


def test_a_server_that_hangs_is_given_up_after_the_time_that_was_given() -> None:
    over = threading.Event()

    def hanging(path: str, body: dict[str, Any]) -> Reply:
        over.wait(SECONDS)
        return 0, ""

    with behind(hanging, concurrency=1) as (engine, _):
        first, waits = Heard(engine, ask(timeout=0.05)), Heard(engine, ask(timeout=0.05))
        assert (first.end().finish, waits.end().finish) == ("timeout", "timeout")
        over.set()


def test_users_take_turns_and_a_full_queue_is_busy() -> None:
    go = threading.Event()

    def held(path: str, body: dict[str, Any]) -> Reply:
        go.wait(SECONDS)
        return whole()

    with behind(held, concurrency=1, waiting=3) as (engine, server):
        heard = [Heard(engine, ask("a0", user="a"))]
        until(lambda: engine.now().running == 1)
        heard += [Heard(engine, ask(text, user=text[0])) for text in ("a1", "a2", "b0")]
        with pytest.raises(Busy):
            engine.submit(ask("b1", user="b"), lambda piece: None)
        go.set()
        assert [one.end().finish for one in heard] == ["stop"] * 4
        assert [body["messages"][0]["content"] for _, body, _ in server.asked] == ["a0", "a1", "b0", "a2"]
        assert server.most_at_once == 1


def test_closing_gives_up_what_is_under_way() -> None:
    go = threading.Event()

    def held(path: str, body: dict[str, Any]) -> Reply:
        go.wait(SECONDS)
        return whole()

    with behind(held) as (engine, _):
        heard = Heard(engine, ask())
        engine.close()
        assert heard.end().finish == "cancelled"
        with pytest.raises(ModelError, match="shutting down"):
            engine.submit(ask(), lambda piece: None)
        go.set()


def test_which_model_and_which_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def listed(*names: str, **more: Any) -> Reply:
        return 200, {"data": [{"id": name, **more} for name in names]}

    with behind(lambda path, body: whole(), listed("m", owned_by="vllm")) as (engine, _):
        assert engine.models()[0].facts["dialect"] == "vllm"
    with (
        pytest.raises(ModelError, match=r"which model .* it has: a, b"),
        behind(lambda p, b: whole(), listed("a", "b")),
    ):
        pass
    with pytest.raises(ModelError, match="has no model 'c'"), behind(lambda p, b: whole(), listed("a"), model="c"):
        pass
    with pytest.raises(ModelError, match="does not list"), behind(lambda p, b: whole(), (404, "")):
        pass
    with behind(lambda path, body: whole(), (404, ""), model="m") as (engine, server):
        monkeypatch.setenv("OWN", "s3cret")
        assert hear(engine, ask()).text == "Hi there"
        assert "Authorization" not in server.asked[0][2]
    with behind(lambda path, body: whole(), key_env="OWN") as (engine, server):
        hear(engine, ask())
        assert server.asked[0][2]["Authorization"] == "Bearer s3cret"


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ModelError, match="no server answers at"):
        UpstreamEngine(url)


class Lora:
    """What vLLM and SGLang say to their orders: vLLM as it did (tests/golden/streams), SGLang as its sources have it
    (srt/entrypoints/http_server.py, srt/lora/lora_registry.py)."""

    def __init__(self, owned_by: str) -> None:
        self.owned_by, self.loaded = owned_by, dict[str, str]()
        self.go = threading.Event()
        self.go.set()

    def models(self) -> Reply:
        base = {"id": "m", "owned_by": self.owned_by, "parent": None}
        return 200, {"data": [base, *({"id": name, "parent": "m", "owned_by": self.owned_by} for name in self.loaded)]}

    def __call__(self, path: str, body: dict[str, Any]) -> Reply:
        prefix = "/v1" if self.owned_by == "vllm" else ""
        if path == f"{prefix}/load_lora_adapter":
            if "bad" in body["lora_path"]:
                return self.refused("LoRA rank 64 is greater than max_lora_rank 16.", 500)
            if body["lora_name"] in self.loaded:
                return self.refused("it has already been loaded", 400)
            self.loaded[body["lora_name"]] = body["lora_path"]
        elif path == f"{prefix}/unload_lora_adapter":
            del self.loaded[body["lora_name"]]
        elif path == "/v1/chat/completions":
            name = body["model"].removeprefix("m:") if self.owned_by == "sglang" else body["model"]
            if name != "m" and name not in self.loaded:
                return self.refused(f"no {name}", 404)
            self.go.wait(SECONDS)
            assert name == "m" or name in self.loaded, "it was taken away from an answer"
            return whole(body["model"])
        else:
            return 404, "not found"
        return (200, "Success: done.") if prefix else (200, {"success": True, "loaded_adapters": self.loaded})

    def refused(self, why: str, status: int) -> Reply:
        """SGLang has one status for all of it."""
        if self.owned_by == "vllm":
            return status, {"error": {"message": why, "type": "InternalServerError", "param": None, "code": status}}
        return 400, {"success": False, "error_message": why}


@contextmanager
def with_lora(owned_by: str) -> Iterator[Any]:
    """(engine, server, what it has loaded)"""
    lora = Lora(owned_by)
    with chat_server(lora, lora.models()) as server:
        engine = UpstreamEngine(server.url)
        try:
            yield engine, server, lora
        finally:
            engine.close()


@pytest.mark.parametrize("owned_by", ["vllm", "sglang"])
def test_adapters_are_loaded_asked_drained_and_dropped(owned_by: str, tmp_path: Path) -> None:
    one, bad = tune_run(tmp_path, "one"), tune_run(tmp_path, "bad")
    with with_lora(owned_by) as (engine, server, lora):
        served = engine.load("ad-1", str(one))
        assert lora.loaded == {"ad-1": str(one)} and served.adapter is not None
        assert served.digest != engine.models()[0].digest
        named = replace(ask(), model="ad-1")
        assert hear(engine, named).text == ("ad-1" if owned_by == "vllm" else "m:ad-1")
        with pytest.raises(ModelError, match=r"max_lora_rank 16\.$"):
            engine.load("ad-2", str(bad))
        lora.go.clear()
        heard = Heard(engine, named)
        until(lambda: server.at_once == 1)
        gone = threading.Thread(target=engine.unload, args=("ad-1",))
        gone.start()
        until(lambda: len(engine.models()) == 1)
        with pytest.raises(ModelError, match="no model 'ad-1'"):
            engine.submit(named, lambda piece: None)
        assert lora.loaded  # the answer under way still has it
        lora.go.set()
        assert heard.end().finish == "stop"
        gone.join(SECONDS)
        assert not lora.loaded and not gone.is_alive()
        # one that is there already, as after a restart of ours, is not loaded again
        lora.loaded["ad-3"] = str(one)
        server.models = lora.models()
        assert engine.load("ad-3", str(one)).name == "ad-3"
        for wrong in ("m", "nothing"):
            with pytest.raises(ModelError, match="no loaded adapter"):
                engine.unload(wrong)


def test_a_server_that_went_away_is_found_again_with_its_adapters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "PROBE", 0.01)
    folder = tune_run(tmp_path, "one")
    with with_lora("vllm") as (engine, server, lora):
        engine.load("ad-1", str(folder))
        before = {served.name: served.digest for served in engine.models()}
        assert engine.now().away is None
        server.answer, server.models = (lambda path, body: (0, "")), (0, "")
        assert hear(engine, ask()).end().finish == "error"
        assert "RemoteProtocolError" in (engine.now().away or "") and engine.now().fault is None
        lora.loaded.clear()  # it was started anew, with other weights
        server.models = (200, {"data": [{"id": "m", "owned_by": "vllm", "root": "other"}]})
        server.answer = lora
        until(lambda: engine.now().away is None)
        assert lora.loaded == {"ad-1": str(folder)}
        assert hear(engine, replace(ask(), model="ad-1")).text == "ad-1"
        after = {served.name: served.digest for served in engine.models()}
        assert before.keys() == after.keys() and not set(before.values()) & set(after.values())


@pytest.mark.parametrize("owned_by", ["vllm", "sglang"])
def test_a_start_anew_that_nobody_noticed_gives_the_adapters_back(owned_by: str, tmp_path: Path) -> None:
    """Before, whoever asked first got an error."""
    with with_lora(owned_by) as (engine, server, lora):
        engine.load("ad-1", str(tune_run(tmp_path, "one")))
        lora.loaded.clear()
        server.asked.clear()
        named = replace(ask(), model="ad-1")
        heard = [Heard(engine, named) for _ in range(8)]
        assert [one.end().finish for one in heard] == ["stop"] * 8 and engine.now().away is None
        assert sum("lora_path" in body for _, body, _ in server.asked) == 1


BREAKS: dict[str, Callable[[], Reply]] = {
    "at once": lambda: (0, ""),
    "after its head": lambda: (200, events(Cut())),
    "before a word": lambda: (200, events(delta("", role="assistant"), Cut())),
}


@pytest.mark.parametrize("when", BREAKS)
def test_a_connection_that_breaks_before_a_word_was_told_is_tried_once_more(when: str) -> None:
    """A server that was started anew, or a box on the way that forgot an idle connection, cost an answer."""
    replies = iter([BREAKS[when](), whole()])
    with behind(lambda path, body: next(replies)) as (engine, server):
        heard = hear(engine, ask())
        assert (heard.text, heard.end().finish, heard.end().usage) == ("Hi there", "stop", Usage(7, 4, 2))
        assert len(server.asked) == 2 and engine.now().away is None
        server.asked.clear()
        server.answer = lambda path, body: BREAKS[when]()  # as by a prompt that kills it
        assert hear(engine, ask()).end().finish == "error"
        assert len(server.asked) == 2
        server.asked.clear()
        server.answer = lambda path, body: (200, events(delta("Hi"), Cut()))
        heard = hear(engine, ask())
        assert (heard.text, heard.end().finish, len(server.asked)) == ("Hi", "error", 1)
        until(lambda: engine.now().away is None)


def test_nothing_is_tried_again_where_the_model_is_another_one_since(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be recorded as an answer of the one that was asked."""
    monkeypatch.setattr(upstream, "PROBE", 0.01)
    with behind(lambda path, body: (0, "")) as (engine, server):
        before = engine.models()[0]
        server.models = (200, {"data": [{"id": "m", "root": "other"}]})
        assert hear(engine, ask()).end().finish == "error"
        assert len(server.asked) == 1 and engine.models()[0].digest != before.digest
        server.answer, server.models = (lambda path, body: (404, "no")), (200, {"data": [{"id": "another"}]})
        assert "has no model 'm'" in (hear(engine, ask()).end().why or "")
        assert "has no model 'm'" in (engine.now().away or ""), "it does not serve it, whoever it is"
        server.answer, server.models = (lambda path, body: whole()), (200, {"data": [{"id": "m"}]})
        until(lambda: engine.now().away is None)
        assert hear(engine, ask()).text == "Hi there"


def test_servers_that_load_no_adapters_say_so(tmp_path: Path) -> None:
    with (
        with_lora("llamacpp") as (engine, _, _),
        pytest.raises(ModelError, match=r"\(llama_cpp\) loads no adapters .*tuneloop merge"),
    ):
        engine.load("ad-1", str(tune_run(tmp_path, "one")))
    with behind(lambda path, body: (404, "no"), dialect="vllm") as (engine, _):
        with pytest.raises(ModelError, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING"):
            engine.load("ad-1", str(tmp_path / "one" / "out" / "adapter"))
        (tmp_path / "empty").mkdir()
        with pytest.raises(ModelError, match=r"no adapter_config\.json"):
            engine.load("ad-1", str(tmp_path / "empty"))


def test_many_at_once_get_their_own_answers() -> None:
    with behind(lambda path, body: whole(body["messages"][0]["content"]), concurrency=16) as (engine, server):
        heard = [Heard(engine, ask(f"question {number}", user=str(number % 5))) for number in range(100)]
        for number, one in enumerate(heard):
            one.end()
            assert one.text == f"question {number}"
        assert server.most_at_once <= 16
