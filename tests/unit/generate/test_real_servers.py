"""What vLLM 0.32.0 and llama-server (llama.cpp 0c1e57098) really said, recorded and played again.

The recordings are of SmolLM2-135M-Instruct: tests/golden/streams, one file a server, with status, type and text.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chat_server import Reply, chat_server
from serving import SECONDS, tune_run

from tuneloop.core.conversation import Message, ToolCall
from tuneloop.core.errors import ModelError
from tuneloop.generate.engine import Decoding, Request
from tuneloop.generate.live import Ask, Piece, Usage
from tuneloop.generate.upstream import UpstreamEngine

RECORDED = Path(__file__).parents[2] / "golden" / "streams"
NAMES = {"vllm": "smollm2", "llama_cpp": "SmolLM2-135M-Instruct.Q4_1.gguf"}
TOOL: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


class Real:
    """A server that plays its recordings: orders by their path, `now` for whatever else is asked."""

    def __init__(self, dialect: str) -> None:
        self._said = json.loads((RECORDED / f"{dialect}.json").read_text())
        self.now, self.orders = "chat", {"load": "load", "unload": "unload"}
        self.later = list[str]()
        """What is asked next, one by one, before it is `now` again."""

    def reply(self, name: str) -> Reply:
        said = self._said[name]
        return said["status"], said["text"], {"Content-Type": said["type"]} if said["type"] else {}

    def __call__(self, path: str, body: dict[str, Any]) -> Reply:
        order = path.removeprefix("/v1/").removesuffix("_lora_adapter")
        return self.reply(self.orders.get(order) or (self.later.pop(0) if self.later else self.now))


@contextmanager
def playing(dialect: str) -> Iterator[tuple[UpstreamEngine, Real, Any]]:
    real = Real(dialect)
    with chat_server(real, real.reply("models")) as server:
        engine = UpstreamEngine(server.url)
        try:
            yield engine, real, server
        finally:
            engine.close()


def hear(engine: UpstreamEngine, *, prose: bool = False, model: str | None = None, **fields: Any) -> list[Piece]:
    told, over = list[Piece](), threading.Event()
    request = Request((Message("text" if prose else "user", "Hi"),), fields.pop("tools", ()))
    ask = Ask(request, fields.pop("decoding", Decoding(9)), model or engine.models()[0].name, **fields)

    def take(piece: Piece) -> None:
        told.append(piece)
        if piece.finish is not None:
            over.set()

    engine.submit(ask, take)
    assert over.wait(SECONDS)
    return told


@pytest.mark.parametrize("dialect", NAMES)
def test_answers_with_usage_logprobs_and_reasons(dialect: str) -> None:
    with playing(dialect) as (engine, real, _):
        (base,) = engine.models()
        assert (base.name, base.context, base.facts["dialect"]) == (NAMES[dialect], 2048, dialect)
        told = hear(engine)
        assert ("".join(piece.text for piece in told), told[-1].finish) == ("The colour is", "length")
        assert (told[-1].usage or Usage(0, 0, 0)).completion == 3
        real.now = "logprobs"
        tokens = [token for piece in hear(engine, logprobs=2) for token in piece.logprobs]
        assert [(token.text, [other[0] for other in token.top]) for token in tokens] == [
            ("The", ["The", "A"]), (" colour", [" colour", " most"]),
        ]  # fmt: skip
        assert [token.top for piece in hear(engine, logprobs=0) for token in piece.logprobs] == [(), ()]
        real.now = "prose"
        tokens = [token for piece in hear(engine, prose=True, logprobs=2) for token in piece.logprobs]
        assert [(token.text, token.top[1][0]) for token in tokens] == [(" Paris", " the"), (".", ",")]
        real.now = "too_long"
        last = hear(engine)[-1]
        assert last.finish == "refused" and "2048 tokens" in (last.why or "")


def test_tool_calls_taken_out_by_vllm_and_left_in_by_llama_cpp() -> None:
    for dialect in NAMES:
        with playing(dialect) as (engine, real, _):
            real.now = "tools"
            told = hear(engine, tools=(TOOL,))
        text = "".join(piece.text for piece in told)
        if dialect == "vllm":
            (call,) = told[-1].calls
            assert (replace(call, id=None), text) == (ToolCall("weather", {"town": "Paris"}), "")
        else:  # the model's template knows no tools; serve/calls.py reads them out of the text
            assert not told[-1].calls and text.startswith('<tool_call>\n{"name": "weather"')


def test_a_schema_that_vllm_cannot_follow_is_the_askers_trouble() -> None:
    with playing("vllm") as (engine, real, _):
        real.now = "bad_schema"
        last = hear(engine, schema={"type": "object"})[-1]
    assert last.finish == "refused" and "look-around" in (last.why or "")


def test_sampling_is_plain_and_the_context_a_limit_that_need_not_be_told() -> None:
    for dialect, more in (
        ("vllm", {"top_k": -1, "min_p": 0, "repetition_penalty": 1}),
        ("llama_cpp", {"top_k": 0, "min_p": 0, "repeat_penalty": 1}),
    ):
        with playing(dialect) as (engine, _, server):
            hear(engine, decoding=Decoding(2048))
            hear(engine, decoding=Decoding(2047, 0.5, 0.9, 7), logprobs=0)
            bodies = [body for _, body, _ in server.asked]
        assert more.items() <= bodies[0].items() and bodies[0]["top_p"] == 1
        assert "max_tokens" not in bodies[0] and bodies[1]["max_tokens"] == 2047
        assert (bodies[1]["top_k"], bodies[1]["top_p"], bodies[1]["top_logprobs"]) == (7, 0.9, 1)


def test_what_vllm_says_of_adapters(tmp_path: Path) -> None:
    folder = str(tune_run(tmp_path, "one"))
    with playing("vllm") as (engine, real, server):
        for order, why in (("load_wide", "LoRA rank 128 is greater"), ("load_again", "already been loaded")):
            real.orders["load"] = order
            with pytest.raises(ModelError, match=why) as found:
                engine.load("ad-1", folder)
            assert "must be started" not in str(found.value)
        real.orders["load"] = "load_nowhere"
        with pytest.raises(ModelError, match=r"No adapter found for /nowhere.*must be started.*the same paths"):
            engine.load("ad-1", folder)
        real.orders["load"] = "load"
        engine.load("ad-1", folder)
        server.asked.clear()
        real.later = ["no_adapter"]  # it was started anew, and nobody asked meanwhile
        assert hear(engine, model="ad-1")[-1].finish == "length" and engine.now().away is None
        assert [path.removeprefix("/v1/") for path, _, _ in server.asked] == [
            "chat/completions", "load_lora_adapter", "chat/completions",
        ]  # fmt: skip
        real.orders["unload"] = "unload_again"
        with pytest.raises(ModelError, match="cannot be found"):
            engine.unload("ad-1")
        assert len(engine.models()) == 1
