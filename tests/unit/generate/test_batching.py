from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from serving import random_lora, until

from tuneloop.core.conversation import Message
from tuneloop.core.errors import ModelError
from tuneloop.generate import batching
from tuneloop.generate.batching import ContinuousEngine
from tuneloop.generate.engine import Decoding, Request
from tuneloop.generate.live import Ask, Busy, Piece
from tuneloop.generate.queue import Limits
from tuneloop.generate.slots import Slots
from tuneloop.generate.transformers_engine import TransformersEngine
from tuneloop.models.config import ModelConfig
from tuneloop.models.find import find_base
from tuneloop.models.load import load_model
from tuneloop.render.load import renderer_of

BASE = find_base(ModelConfig(base="embedded"))
RENDERER = renderer_of(BASE)


class Heard:
    """Everything that was told of one answer."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.over = threading.Event()

    def __call__(self, piece: Piece) -> None:
        self.pieces.append(piece)
        if piece.finish:
            self.over.set()

    @property
    def text(self) -> str:
        assert self.over.wait(60)
        return "".join(piece.text for piece in self.pieces)

    @property
    def last(self) -> Piece:
        assert self.over.wait(60)
        return self.pieces[-1]


def load() -> Any:
    return load_model(BASE, torch.float32, seed=0, device="cpu").eval()


@pytest.fixture(scope="module")
def engine() -> Iterator[ContinuousEngine]:
    made = ContinuousEngine(load, RENDERER, BASE, "base", Limits(seats=4))
    yield made
    made.close()


def request(text: str, seed: int = 0) -> Request:
    return Request((Message("user", text),), seed=seed)


def hear(engine: ContinuousEngine, text: str, model: str = "base", new: int = 12, **how: Any) -> Heard:
    heard = Heard()
    engine.submit(Ask(request(text), Decoding(new), model, **how), heard)
    return heard


QUESTIONS = [f"What is {a} and {b}? {'Please say. ' * (a % 3)}" for a in range(4) for b in range(3)]


def expected(model: Any, questions: list[str] = QUESTIONS, new: int = 12) -> list[str]:
    found = TransformersEngine(model, RENDERER).answer([request(text) for text in questions], Decoding(new))
    return [completion.text for completion in found]


def test_answers_are_those_of_one_at_a_time_however_they_join(engine: ContinuousEngine) -> None:
    want = expected(load())
    for _ in range(2):  # the second time beginnings are known
        heard = [hear(engine, text, user=str(number % 3)) for number, text in enumerate(QUESTIONS)]
        assert [one.text for one in heard] == want
    assert heard[0].last.usage is not None and heard[0].last.usage.cached > 16
    assert all(one.last.finish in ("stop", "length") for one in heard)


def test_samples_follow_their_seed_alone(engine: ContinuousEngine) -> None:
    def draw(seed: int) -> str:
        heard = Heard()
        engine.submit(Ask(request("Tell me something", seed), Decoding(16, 1.0, 0.9), "base"), heard)
        return heard.text

    crowd = [hear(engine, text, new=20) for text in QUESTIONS[:3]]
    first = draw(1)
    assert all(one.text is not None for one in crowd)
    assert draw(1) == first and len({draw(seed) for seed in range(6)}) > 1


def test_a_stop_text_ends_the_answer_and_is_not_told(engine: ContinuousEngine) -> None:
    whole = hear(engine, "Tell me a story", new=40).text
    assert len(whole) > 8
    stop = whole[4:7]
    heard = hear(engine, "Tell me a story", new=40, stop=(stop,))
    assert heard.text == whole[: whole.index(stop)] and heard.last.finish == "stop"


def test_an_answer_follows_its_schema(engine: ContinuousEngine) -> None:
    schema = {
        "type": "object", "properties": {"颜色": {"enum": ["红", "蓝"]}, "n": {"type": "integer", "maximum": 9}},
        "required": ["颜色", "n"], "additionalProperties": False,
    }  # fmt: skip
    heard = hear(engine, "红 or 蓝?", new=60, schema=schema)
    value = json.loads(heard.text)
    assert value["颜色"] in ("红", "蓝") and isinstance(value["n"], int) and heard.last.finish == "stop"
    assert hear(engine, "x", schema={"type": "nonsense"}).last.finish == "refused"


def test_an_answers_fields_come_in_the_order_of_its_schema(engine: ContinuousEngine) -> None:
    """A model that is to reason before it judges must write `reason` first; they came in the order of the alphabet."""
    for names in (["reason", "label"], ["label", "reason"]):
        properties = {name: {"enum": ["good", "bad"]} for name in names}
        schema = {"type": "object", "properties": properties, "required": names, "additionalProperties": False}
        assert list(json.loads(hear(engine, "Good?", new=60, schema=schema).text)) == names


RECURSIVE = {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}


@pytest.mark.parametrize("schema", [RECURSIVE, {"type": "string", "pattern": "^(a{1000}){1000}$"}])
def test_half_an_answer_to_a_schema_is_none(engine: ContinuousEngine, schema: Any) -> None:
    """What llguidance gives up half way ended by "stop", as if that were JSON."""
    last = hear(engine, "x", new=60, schema=schema).last
    assert last.finish == "refused" and "too much to follow" in (last.why or "") and "\n" not in (last.why or "")


def test_a_schema_says_nothing_to_whoever_follows_it(engine: ContinuousEngine) -> None:
    """`lenient` made keywords ignored that are refused else."""
    schema = {"type": "array", "uniqueItems": True, "x-guidance": {"lenient": True}}
    last = hear(engine, "x", schema=schema).last
    assert last.finish == "refused" and "x-guidance" in (last.why or "")


def test_logprobs_are_of_the_tokens_told(engine: ContinuousEngine) -> None:
    heard = hear(engine, "What is 2 and 3?", new=5, logprobs=3)
    assert heard.last.usage is not None
    told = [one for piece in heard.pieces for one in piece.logprobs]
    assert len(told) == heard.last.usage.completion
    assert all(one.logprob == pytest.approx(one.top[0][2]) and len(one.top) == 3 for one in told), "greedy is likeliest"


def test_who_leaves_who_is_late_and_who_cannot_be_answered(engine: ContinuousEngine) -> None:
    heard = Heard()
    ticket = engine.submit(Ask(request("Tell me a very long story"), Decoding(400, 1.0), "base"), heard)
    ticket.cancel()
    assert heard.last.finish == "cancelled"
    assert hear(engine, "Tell me", new=400, timeout=0.0).last.finish == "timeout"
    refused = hear(engine, "word " * 5_000)
    assert refused.last.finish == "refused" and "context" in (refused.last.why or "")
    with pytest.raises(ModelError, match="no model 'other'"):
        hear(engine, "x", model="other")
    assert hear(engine, QUESTIONS[0]).text == expected(load(), QUESTIONS[:1])[0], "and others go on"


def test_a_prompt_that_takes_long_to_read_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A megabyte takes a second to tokenise; one such client after the other left others a twentieth of the speed."""
    made = ContinuousEngine(load, RENDERER, BASE, "base", Limits(seats=4))
    reading, go_on, prompt = threading.Event(), threading.Event(), RENDERER.prompt

    def slowly(messages: Any, tools: Any) -> list[int]:
        if messages[0].content == "long":
            reading.set()
            assert go_on.wait(60)
        return prompt(messages, tools)

    monkeypatch.setattr(RENDERER, "prompt", slowly)
    try:
        running = hear(made, "Tell me a story", new=60)
        late, left = hear(made, "long", timeout=0.0), hear(made, "long")
        assert reading.wait(60)
        assert running.text == expected(load(), ["Tell me a story"], 60)[0]
        assert made.now().waiting == 2
        go_on.set()
        assert late.last.finish == "timeout" and left.last.finish in ("stop", "length")
        monkeypatch.setattr(RENDERER, "prompt", lambda *_: 1 / 0)
        assert hear(made, "x").last.finish == "error"
        monkeypatch.setattr(RENDERER, "prompt", prompt)
        assert hear(made, QUESTIONS[0]).last.finish in ("stop", "length"), "and others are answered"
    finally:
        go_on.set()
        made.close()


def test_a_long_prompt_is_read_between_the_steps_of_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In one go it made everybody wait until all of it was read."""
    monkeypatch.setattr(batching, "READ_TOKENS", 16)
    made = ContinuousEngine(load, RENDERER, BASE, "base", Limits(seats=4))
    try:
        tuned = random_lora(tmp_path / "lora", load(), 1)
        made.load("lora", str(tmp_path / "lora"))
        texts = [f"{'What is 3 and 4? Please say. ' * 12}What is {number} and 2?" for number in range(3)]
        assert len(RENDERER.prompt((Message("user", texts[0]),), ())) > 5 * 16
        told: list[Heard] = []

        def ask(text: str, new: int) -> Heard:
            heard = Heard()

            def note(piece: Piece) -> None:
                told.append(heard)
                heard(piece)

            made.submit(Ask(request(text), Decoding(new), "base"), note)
            return heard

        running = ask("Tell me a story", 60)
        until(lambda: told)
        long = ask(texts[0], 12)
        others = [hear(made, texts[0], "lora"), *(hear(made, text) for text in texts[1:])]
        assert [one.text for one in (long, *others[1:])] == expected(load(), texts)
        assert others[0].text == expected(tuned, texts[:1])[0]
        assert running.text == expected(load(), ["Tell me a story"], 60)[0]
        assert told.index(long) >= 4, "the other one went on meanwhile"
        usage = [one.last.usage for one in others[1:]]
        assert all(use is not None and use.cached >= 4 * 16 for use in usage), "what begins alike was read once"

        heard = Heard()
        ticket = made.submit(Ask(request("Once more. " + texts[0] * 2), Decoding(12), "base"), heard)
        late = hear(made, "And again. " + texts[0] * 2, timeout=0.01)
        assert late.last.finish == "timeout"
        ticket.cancel()
        assert heard.last.finish == "cancelled" and not heard.text
        assert made.now().running == 0
    finally:
        made.close()


def test_a_full_queue_says_so() -> None:
    made = ContinuousEngine(load, RENDERER, BASE, "base", Limits(seats=1, waiting=1))
    try:
        kept = []
        with pytest.raises(Busy) as busy:
            for _ in range(50):
                kept.append(hear(made, "Tell me a story", new=200))
        assert busy.value.retry_after >= 1
    finally:
        made.close()
    assert all(one.last.finish for one in kept), "closing tells everybody"


def test_adapters_in_one_batch_answer_as_if_alone(tmp_path: Path) -> None:
    made = ContinuousEngine(load, RENDERER, BASE, "base", Limits(seats=6))
    try:
        want = {"base": expected(load())}
        for number, name in enumerate(("v1", "v10")):  # names of which one begins with the other
            want[name] = expected(random_lora(tmp_path / name, load(), number, use_rslora=bool(number)))
            made.load(name, str(tmp_path / name))
        assert want["v1"] != want["base"] != want["v10"] != want["v1"]
        for _ in range(2):
            heard = [(name, n, hear(made, text, name)) for n, text in enumerate(QUESTIONS) for name in want]
            assert [one.text for _, _, one in heard] == [want[name][n] for name, n, _ in heard]
        late = hear(made, "Tell me a story", "v10", new=40)
        made.unload("v10")
        assert late.last.finish in ("stop", "length"), "answers under way end first"
        assert [served.name for served in made.models()] == ["base", "v1"]
        assert hear(made, QUESTIONS[0], "v1").text == want["v1"][0]
    finally:
        made.close()


def test_what_cannot_be_mixed_is_refused(tmp_path: Path) -> None:
    made = ContinuousEngine(load, RENDERER, BASE, "base")
    try:
        random_lora(tmp_path / "dora", load(), 1, use_dora=True)
        with pytest.raises(ModelError, match=r"use_dora.*merge it"):
            made.load("dora", str(tmp_path / "dora"))
        random_lora(tmp_path / "plain", load(), 2)
        made.load("one", str(tmp_path / "plain"))
        with pytest.raises(ModelError, match="loaded already"):
            made.load("one", str(tmp_path / "plain"))
        with pytest.raises(ModelError, match="no loaded adapter"):
            made.unload("base")
    finally:
        made.close()


def test_a_fault_while_some_join_is_told_to_all_who_were_to_join(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the second adapter had left the queue, and never heard of the fault of the first."""
    made = ContinuousEngine(load, RENDERER, BASE, "base")
    go_on = threading.Event()
    try:
        random_lora(tmp_path / "lora", load(), 1)
        made.load("lora", str(tmp_path / "lora"))
        made._asked(lambda: go_on.wait(60))
        join, faults = Slots.join, iter([1])

        def fails_once(self: Slots, prompts: Any) -> Any:
            if next(faults, None):
                raise RuntimeError("a fault")
            return join(self, prompts)

        monkeypatch.setattr(Slots, "join", fails_once)
        heard = [hear(made, QUESTIONS[0]), hear(made, QUESTIONS[0], "lora")]
        until(lambda: all(row.prompt for row in made._waiting))
        go_on.set()
        assert [one.last.finish for one in heard] == ["error", "error"]
        assert hear(made, QUESTIONS[0]).text == expected(load(), QUESTIONS[:1])[0], "and others are answered"
    finally:
        go_on.set()
        made.close()
