"""A model in fewer bits serves only when it says what it says in full precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tuneloop.core.conversation import Message
from tuneloop.core.errors import ModelError
from tuneloop.flows import agreement, serving
from tuneloop.flows.agreement import Subject, check, questions
from tuneloop.generate.batching import ContinuousEngine
from tuneloop.generate.engine import Decoding, Request
from tuneloop.generate.live import Ask
from tuneloop.models.config import ModelConfig
from tuneloop.models.fewer_bits import Int8Rows, hold
from tuneloop.models.find import find_base
from tuneloop.models.load import load_model
from tuneloop.render.load import renderer_of
from tuneloop.serve.config import QuantizeConfig, ServeConfig

FLAGS = torch.cpu.get_capabilities()
pytestmark = pytest.mark.skipif(
    not (FLAGS.get("avx512_bf16") or FLAGS.get("amx_bf16")), reason="needs a CPU that computes bf16"
)
BASE = find_base(ModelConfig(base="embedded"))
RENDERER = renderer_of(BASE)
LIMITS = QuantizeConfig()


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TUNELOOP_CACHE", str(tmp_path / "cache"))


def subject(scheme: Any = "int8") -> Subject:
    model = load_model(BASE, torch.bfloat16, seed=0, device="cpu")
    return Subject(model, hold(model, scheme), scheme, RENDERER, BASE)


def test_eight_bits_of_the_embedded_base_agree_and_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    examples = questions(None)[:12]
    found = check(subject(), examples, LIMITS)
    assert found.tokens > 50 and found.same > 0.95 and 0 < found.kl < 0.01 and found.kl <= found.kl_p99
    monkeypatch.setattr(agreement, "measure", lambda *_: pytest.fail("it was known"))
    assert check(subject(), examples, LIMITS) == found


def test_a_broken_model_is_refused_with_its_numbers() -> None:
    broken = subject()
    for module in broken.model.modules():
        if isinstance(module, Int8Rows) and module is not broken.model.get_output_embeddings():
            module.weight.neg_()
    with pytest.raises(ModelError, match=r"int8 differs too much.*% of .* words the same, KL .*Set serve\.quantize"):
        check(broken, questions(None)[:12], LIMITS)


def test_numbers_that_are_not_finite_are_refused_and_not_remembered(tmp_path: Path) -> None:
    broken = subject()
    head: Any = broken.model.get_output_embeddings()
    head.scale[5] = float("nan")
    with pytest.raises(ModelError, match="differs too much"):
        check(broken, questions(None)[:4], QuantizeConfig(same=0))
    assert not (tmp_path / "cache" / "agreement").exists()


def test_prompts_are_the_runs_own_where_they_are_still_there(tmp_path: Path) -> None:
    assert questions(tmp_path) == questions(None)


def test_an_engine_in_eight_bits_has_its_own_digest_and_tells_what_it_is() -> None:
    held = subject()
    facts = {"quantize": "int8", "agreement": {"embedded": 1}}
    plain = ContinuousEngine(lambda: load_model(BASE, torch.bfloat16, seed=0), RENDERER, BASE, "base")
    made = ContinuousEngine(lambda: held.model, RENDERER, BASE, "base", facts=facts)
    other = ContinuousEngine(lambda: subject().model, RENDERER, BASE, "base", facts={**facts, "agreement": {}})
    try:
        digests = [engine.models()[0].digest for engine in (plain, made, other)]
        assert digests[0] != digests[1] == digests[2] and made.models()[0].facts == facts
    finally:
        for engine in (plain, made, other):
            engine.close()


@pytest.mark.parametrize("scheme", ["none", "int8", "int4"])
def test_answers_in_fewer_bits_are_nearly_those_of_one_at_a_time_as_in_bf16(scheme: Any) -> None:
    import queue

    def load() -> Any:
        return load_model(BASE, torch.bfloat16, seed=0) if scheme == "none" else subject(scheme).model

    made = ContinuousEngine(load, RENDERER, BASE, "base")
    asks = [f"What is {a} and {b}? Please say." for a in range(4) for b in range(3)]

    def answers(texts: list[str]) -> list[str]:
        told: list[queue.Queue[Any]] = [queue.Queue() for _ in texts]
        for text, heard in zip(texts, told, strict=True):
            made.submit(Ask(Request((Message("user", text),)), Decoding(12), "base"), heard.put)
        out = []
        for heard in told:
            pieces = [heard.get(timeout=60)]
            while pieces[-1].finish is None:
                pieces.append(heard.get(timeout=60))
            assert pieces[-1].finish in ("stop", "length")
            out.append("".join(piece.text for piece in pieces))
        return out

    try:
        alone = [answers([text])[0] for text in asks]
        together = answers(asks)
        same = sum(one == other for one, other in zip(alone, together, strict=True))
        assert same >= 6, "bf16 rounds apart in prompts computed alone and together, and a word that turns changes all"
    finally:
        made.close()


def test_what_cannot_be_held_in_fewer_bits_does_not_serve_in_full_without_a_word() -> None:
    config = ServeConfig.model_validate({"quantize": {"scheme": "int8"}})
    with pytest.raises(ModelError, match=r"a DoRA.*tuneloop merge.*serve\.quantize\.scheme: none"):
        serving._whole("embedded", "embedded", "a DoRA", config)


def test_a_service_in_eight_bits_is_gated_and_says_so(tmp_path: Path) -> None:
    name, engine, _ = serving._engine(
        "embedded", tmp_path, ServeConfig.model_validate({"quantize": {"scheme": "int8"}}), {}
    )
    try:
        facts = engine.models()[0].facts
        assert name == "embedded" and facts["quantize"] == "int8" and facts["agreement"]["embedded"]["same"] > 0.95
    finally:
        engine.close()
    strict = ServeConfig.model_validate({"quantize": {"scheme": "int8", "kl": 0.0}})
    with pytest.raises(ModelError, match="differs too much"):
        serving._engine("embedded", tmp_path, strict, {})
