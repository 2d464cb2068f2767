"""A model in fewer bits serves only when it says what it says in full precision."""

from __future__ import annotations

import multiprocessing
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from serving import SECONDS, random_lora, until
from transformers import PreTrainedModel

from tuneloop.core.conversation import Message
from tuneloop.core.errors import ModelError
from tuneloop.flows import agreement, serving
from tuneloop.flows.agreement import Measured, Subject, check, questions
from tuneloop.flows.gate import Gate
from tuneloop.generate.batching import ContinuousEngine
from tuneloop.generate.engine import Decoding, Request
from tuneloop.generate.live import Ask
from tuneloop.models.config import ModelConfig
from tuneloop.models.fewer_bits import Int8Rows, hold
from tuneloop.models.find import find_base
from tuneloop.models.load import load_model
from tuneloop.render.load import renderer_of
from tuneloop.serve.adapters import Roster
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


SUBJECT = Subject("int8", RENDERER, BASE)


def held(scheme: Any = "int8") -> tuple[PreTrainedModel, Measured]:
    """The base in fewer bits, and how it is compared."""
    model = load_model(BASE, torch.bfloat16, seed=0, device="cpu")
    return model, partial(agreement.measure, model, hold(model, scheme))


def test_eight_bits_of_the_embedded_base_agree_and_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    examples = questions(None)[:12]
    found = check(SUBJECT, examples, LIMITS, held()[1])
    assert found.tokens > 50 and found.same > 0.95 and 0 < found.kl < 0.01 and found.kl <= found.kl_p99
    assert check(SUBJECT, examples, LIMITS, lambda *_: pytest.fail("it was known")) == found


def test_a_broken_model_is_refused_with_its_numbers() -> None:
    broken, measured = held()
    for module in broken.modules():
        if isinstance(module, Int8Rows) and module is not broken.get_output_embeddings():
            module.weight.neg_()
    with pytest.raises(ModelError, match=r"int8 differs too much.*% of .* words the same, KL .*Set serve\.quantize"):
        check(SUBJECT, questions(None)[:12], LIMITS, measured)


def test_numbers_that_are_not_finite_are_refused_and_not_remembered(tmp_path: Path) -> None:
    broken, measured = held()
    head: Any = broken.get_output_embeddings()
    head.scale[5] = float("nan")
    with pytest.raises(ModelError, match="differs too much"):
        check(SUBJECT, questions(None)[:4], QuantizeConfig(same=0), measured)
    assert not (tmp_path / "cache" / "agreement").exists()


def test_prompts_are_the_runs_own_where_they_are_still_there(tmp_path: Path) -> None:
    assert questions(tmp_path) == questions(None)


def test_an_engine_in_eight_bits_has_its_own_digest_and_tells_what_it_is() -> None:
    model, _ = held()
    facts = {"quantize": "int8", "agreement": {"embedded": 1}}
    plain = ContinuousEngine(lambda: load_model(BASE, torch.bfloat16, seed=0), RENDERER, BASE, "base")
    made = ContinuousEngine(lambda: model, RENDERER, BASE, "base", facts=facts)
    other = ContinuousEngine(lambda: held()[0], RENDERER, BASE, "base", facts={**facts, "agreement": {}})
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
        return load_model(BASE, torch.bfloat16, seed=0) if scheme == "none" else held(scheme)[0]

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
    name, engine, _, gate = serving._engine(
        "embedded", tmp_path, ServeConfig.model_validate({"quantize": {"scheme": "int8"}}), {}
    )
    assert gate is not None
    try:
        facts = engine.models()[0].facts
        assert name == "embedded" and facts["quantize"] == "int8" and facts["agreement"]["embedded"]["same"] > 0.95
    finally:
        engine.close()
    strict = ServeConfig.model_validate({"quantize": {"scheme": "int8", "kl": 0.0}})
    with pytest.raises(ModelError, match="differs too much"):
        serving._engine("embedded", tmp_path, strict, {})


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """Of a run whose data is gone."""
    folder = tmp_path / "runs" / "loud" / "out" / "adapter"
    random_lora(folder, load_model(BASE, torch.float32, seed=0, device="cpu"), 3)
    return folder


def test_an_adapter_that_comes_later_is_compared_in_a_process_of_its_own(
    adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuneloop.flows.agreement.PROMPTS", 4)
    wide = QuantizeConfig(same=0, kl=100, kl_p99=100)
    gate = Gate("embedded", BASE, RENDERER, "int8", wide)
    gate.pass_adapter(adapter)
    ((name, found),) = gate.facts["agreement"].items()
    assert "loud" in name and found["tokens"] > 20
    measured = held()[1]
    here = check(Subject("int8", RENDERER, BASE, adapter), questions(None), wide, measured)
    assert here.tokens == found["tokens"], "it was remembered"
    prompts = agreement.tokenized(RENDERER, questions(None))
    assert measured(Subject("int8", RENDERER, BASE, adapter), prompts, True).kl == pytest.approx(found["kl"], rel=0.2)
    monkeypatch.setattr(Gate, "_measured_apart", lambda *_: pytest.fail("it was known"))
    gate.pass_adapter(adapter)
    with pytest.raises(ModelError, match="loud in int8 differs too much from full precision"):
        Gate("embedded", BASE, RENDERER, "int8", QuantizeConfig(kl=0)).pass_adapter(adapter)


def test_what_stands_in_the_way_of_the_comparison_is_said(adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelError, match=r"adapter_model\.safetensors cannot be read"):
        Gate("embedded", BASE, RENDERER, "int8", LIMITS).pass_adapter(adapter)
    unknown: Any = "int9"  # a fault of ours, or a process that was killed
    with pytest.raises(ModelError, match=r"with loud: the comparison .* broke off \(exit code 1\)"):
        Gate("embedded", BASE, RENDERER, unknown, LIMITS).pass_adapter(adapter)


def test_a_comparison_ends_with_the_service(adapter: Path) -> None:
    gate, refused = Gate("embedded", BASE, RENDERER, "int8", LIMITS), list[str]()

    def compare() -> None:
        with pytest.raises(ModelError) as found:
            gate.pass_adapter(adapter)
        refused.append(str(found.value))

    comparing = threading.Thread(target=compare)
    comparing.start()
    until(multiprocessing.active_children)
    gate.stop()
    comparing.join(SECONDS)
    assert not comparing.is_alive() and not multiprocessing.active_children()
    compare()  # nor is another begun
    assert all("shutting down" in why for why in refused) and len(refused) == 2


def test_an_adapter_that_does_not_pass_is_not_loaded(adapter: Path) -> None:
    """Before, only those of the recipe were compared; one that an administrator added later served as it was."""
    engine = ContinuousEngine(lambda: load_model(BASE, torch.bfloat16, seed=0), RENDERER, BASE, "base")
    asked: list[Path] = []

    class Strict:
        def pass_adapter(self, adapter: Path) -> None:
            asked.append(adapter)
            raise ModelError("differs too much")

        def stop(self) -> None: ...

    try:
        roster = Roster(engine, "base", "base", Strict())
        with pytest.raises(ModelError, match="differs too much"):
            roster.put("clinic", adapter)
        assert list(roster.listed()) == ["base"] and len(engine.models()) == 1 and asked == [adapter]
    finally:
        engine.close()
