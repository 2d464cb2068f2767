"""lm-evaluation-harness on a task of our own, offline: its numbers are those that the model's logits give by hand."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tuneloop.core.conversation import Message
from tuneloop.core.errors import DataError, MissingExtra
from tuneloop.evaluate import harness
from tuneloop.evaluate.contestant import Contestant
from tuneloop.flows.contestants import contestant
from tuneloop.forward import attention
from tuneloop.generate.scripted import ScriptedEngine

QUESTIONS = [
    ("one and one", "two", "six"),
    ("two and two", "four", "one"),
    ("red or sky", "blue sky", "no"),
    ("a", "b", "c"),
]


def test_intervals_are_the_standard_errors() -> None:
    score = {"base": {"t": {"acc,none": {"value": 0.5, "stderr": 0.1, "n": 25}}}}
    found = harness.report(score, 0.95)["t"]["acc,none"]["base"]
    assert found["low"] == pytest.approx(0.304, abs=1e-3) and found["high"] == pytest.approx(0.696, abs=1e-3)
    unknown = {"base": {"t": {"acc,none": {"value": 0.5, "stderr": None, "n": 1}}}}
    assert harness.report(unknown, 0.95)["t"]["acc,none"]["base"]["low"] is None


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(MissingExtra, match=r"pip install 'tuneloop\[lm-eval\]'"):
        harness.run(SimpleNamespace(), ["gsm8k"], None, False)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def opened(tiny_model: Any, tiny_tokenizer: Any) -> tuple[Any, Contestant]:
    pytest.importorskip("lm_eval")
    from tuneloop.render.template import Renderer

    model = tiny_model("llama")
    return model, contestant(model, Renderer(tiny_tokenizer))


def task(folder: Path, kind: str, **more: Any) -> str:
    """A YAML task over QUESTIONS as JSONL."""
    rows = [{"question": q, "right": a, "wrong": b} for q, a, b in QUESTIONS]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    value = {
        "task": f"own_{kind}", "dataset_path": "json", "test_split": "test", "output_type": kind,
        "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}}, "doc_to_text": "{{question}}:",
        "doc_to_target": "{{right}}", **more,
    }  # fmt: skip
    path = folder / f"own_{kind}.yaml"
    path.write_text(json.dumps(value))
    return str(path)


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))


def by_hand(model: Any, renderer: Any, before: str, after: str) -> float:
    """The log-likelihood of `after`, one forward pass."""
    whole = renderer.prompt((Message("text", before + after),))
    start = len(renderer.prompt((Message("text", before),)))
    with attention.standard(model):
        logs = model(torch.tensor([whole])).logits[0].log_softmax(-1)
    return float(sum(logs[at - 1, whole[at]] for at in range(start, len(whole))))


def test_choices_are_weighed_by_the_models_own_likelihoods(opened: tuple[Any, Contestant], tmp_path: Path) -> None:
    model, who = opened
    path = task(
        tmp_path, "multiple_choice", doc_to_choice="{{[right, wrong]}}", doc_to_target=0,
        metric_list=[{"metric": "acc"}],
    )  # fmt: skip
    found = harness.run(who, [path], None, False)["own_multiple_choice"]["acc,none"]
    assert who.local is not None
    right = [
        by_hand(model, who.local.renderer, f"{q}:", f" {a}") > by_hand(model, who.local.renderer, f"{q}:", f" {b}")
        for q, a, b in QUESTIONS
    ]
    assert found["value"] == sum(right) / 4 and found["n"] == 4
    share = found["value"]
    assert found["stderr"] == pytest.approx((share * (1 - share) / 3) ** 0.5)
    assert harness.run(who, [path], 2, False)["own_multiple_choice"]["acc,none"]["n"] == 2


def test_rolling_likelihoods_and_answers(opened: tuple[Any, Contestant], tmp_path: Path) -> None:
    model, who = opened
    assert who.local is not None
    renderer = who.local.renderer
    rolling = task(
        tmp_path, "loglikelihood_rolling", doc_to_text="", doc_to_target="{{question}} {{right}}",
        metric_list=[{"metric": "byte_perplexity", "aggregation": "weighted_perplexity", "higher_is_better": False}],
    )  # fmt: skip
    found = harness.run(who, [rolling], None, False)["own_loglikelihood_rolling"]["byte_perplexity,none"]["value"]
    start, total, size = renderer.tokenizer.bos_token_id, 0.0, 0
    start = renderer.tokenizer.eos_token_id if start is None else start
    for q, a, _ in QUESTIONS:
        ids = [start, *renderer.tokenizer.encode(f"{q} {a}", add_special_tokens=False)]
        with attention.standard(model):
            logs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        total += float(sum(logs[at - 1, ids[at]] for at in range(1, len(ids))))
        size += len(f"{q} {a}".encode())
    assert found == pytest.approx(float(torch.tensor(-total / size).exp()), rel=1e-4)

    said = {"one and one:": "two\nand more", "two and two:": "five", "red or sky:": "blue sky", "a:": "b Q: b"}
    talker = Contestant(ScriptedEngine(lambda request: said[request.messages[0].content]), who.local)
    answers = task(
        tmp_path, "generate_until", generation_kwargs={"until": ["\n", " Q:"], "max_gen_toks": 30},
        metric_list=[{"metric": "exact_match"}],
    )  # fmt: skip
    assert harness.run(talker, [answers], None, False)["own_generate_until"]["exact_match,none"]["value"] == 0.75


def test_what_cannot_be_asked_is_said(opened: tuple[Any, Contestant]) -> None:
    with pytest.raises(DataError, match="no_such_task"):
        harness.run(opened[1], ["no_such_task.yaml"], None, False)
    with pytest.raises(DataError, match="needs the model's weights"):
        harness.run(Contestant(opened[1].engine), ["gsm8k"], None, False)
