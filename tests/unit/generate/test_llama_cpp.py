"""llama.cpp in process: the answers of our own engine, one at a time."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf_file import write_gguf
from serving import SECONDS

from tuneloop.core.conversation import Message
from tuneloop.core.errors import ModelError
from tuneloop.generate.engine import Decoding, Request
from tuneloop.generate.live import Ask, Busy, Piece
from tuneloop.generate.llama_cpp import LlamaCppEngine
from tuneloop.generate.transformers_engine import TransformersEngine
from tuneloop.models.config import ModelConfig
from tuneloop.models.find import find_base
from tuneloop.models.load import load_model
from tuneloop.render.load import renderer_of

pytest.importorskip("llama_cpp")
BASE = find_base(ModelConfig(base="embedded"))
RENDERER = renderer_of(BASE)
QUESTIONS = ("What is the capital of France?", "你好，请介绍一下你自己。", "Name three colours.")


def load() -> Any:
    return load_model(BASE, torch.float32, seed=0, device="cpu").eval()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "base.gguf"
    write_gguf(path, load(), RENDERER.tokenizer)
    return path


@pytest.fixture(scope="module")
def engine(file: Path) -> Iterator[LlamaCppEngine]:
    made = LlamaCppEngine(file, RENDERER, "base", waiting=2)
    yield made
    made.close()


class Heard:
    """Everything that is told of one answer; with `hold` the engine waits after each piece."""

    def __init__(
        self, engine: LlamaCppEngine, text: str, *, hold: threading.Event | None = None, **fields: Any
    ) -> None:
        self.pieces: list[Piece] = []
        self.begun, self._over, self._hold = threading.Event(), threading.Event(), hold
        how = fields.pop("decoding", Decoding(24))
        request = Request((Message("user", text),), seed=fields.pop("seed", 0))
        self.ticket = engine.submit(Ask(request, how, fields.pop("model", "base"), **fields), self._told)

    def _told(self, piece: Piece) -> None:
        self.pieces.append(piece)
        self.begun.set()
        if self._hold is not None:
            self._hold.wait(SECONDS)
        if piece.finish:
            self._over.set()

    @property
    def last(self) -> Piece:
        assert self._over.wait(SECONDS)
        return self.pieces[-1]

    @property
    def text(self) -> str:
        assert self.last
        return "".join(piece.text for piece in self.pieces)


def test_greedy_answers_are_those_of_the_model_itself(engine: LlamaCppEngine) -> None:
    own = TransformersEngine(load(), RENDERER)
    expected = own.answer([Request((Message("user", text),)) for text in QUESTIONS], Decoding(24))
    for text, completion in zip(QUESTIONS, expected, strict=True):
        heard = Heard(engine, text)
        assert heard.text == completion.text
        assert heard.last.finish == ("stop" if completion.finished else "length")


def test_the_start_of_a_conversation_is_kept(engine: LlamaCppEngine) -> None:
    first = Heard(engine, QUESTIONS[0])
    again = Heard(engine, QUESTIONS[0])
    assert again.text == first.text
    assert first.last.usage is not None and again.last.usage is not None
    assert again.last.usage.cached == first.last.usage.prompt - 1


def test_samples_seeds_stops_schemas_and_logprobs(engine: LlamaCppEngine) -> None:
    hot = Decoding(12, 1.0, 0.9, 50)
    one, same, other = (Heard(engine, "Hi", decoding=hot, seed=seed).text for seed in (1, 1, 2))
    assert one == same != other
    text = Heard(engine, QUESTIONS[0]).text
    assert Heard(engine, QUESTIONS[0], stop=(text[5:8],)).text == text[: text.index(text[5:8])]
    schema = {
        "type": "object", "properties": {"a": {"enum": ["男", "女"]}}, "required": ["a"], "additionalProperties": False,
    }  # fmt: skip
    assert json.loads(Heard(engine, "Hi", schema=schema).text)["a"] in ("男", "女")
    assert Heard(engine, "Hi", schema={"type": "nonsense"}).last.finish == "refused"
    heard = Heard(engine, QUESTIONS[0], logprobs=2)
    assert heard.text == text
    tokens = [token for piece in heard.pieces for token in piece.logprobs]
    assert "".join(token.text for token in tokens) == text
    assert all(0 >= token.logprob == pytest.approx(token.top[0][2]) and len(token.top) == 2 for token in tokens)


def test_one_at_a_time_with_turns_limits_and_cancelling(engine: LlamaCppEngine) -> None:
    go = threading.Event()
    first = Heard(engine, QUESTIONS[0], hold=go)
    assert first.begun.wait(SECONDS)
    late, waits = Heard(engine, "Hi", timeout=0.001), Heard(engine, "Hi")
    assert (engine.now().running, engine.now().waiting) == (1, 2)
    with pytest.raises(Busy):
        Heard(engine, "Hi")
    first.ticket.cancel()
    go.set()
    assert first.last.finish == "cancelled"
    assert (late.last.finish, waits.last.finish) == ("timeout", "length")
    assert Heard(engine, "x " * 5000).last.finish == "refused"


def test_what_it_does_not_serve_is_refused(engine: LlamaCppEngine, file: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model 'other'"):
        Heard(engine, "Hi", model="other")
    with pytest.raises(ModelError, match="tuneloop merge"):
        engine.load("ad-1", str(tmp_path))
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(file.read_bytes()[:10_000])
    with pytest.raises(ModelError, match="cannot load this file"):
        LlamaCppEngine(broken, RENDERER, "base")


def test_another_models_tokenizer_is_refused(file: Path, tiny_tokenizer: Any) -> None:
    from tuneloop.render.template import Renderer

    with pytest.raises(ModelError, match=r"not that of the \.gguf file"):
        LlamaCppEngine(file, Renderer(tiny_tokenizer), "base")
