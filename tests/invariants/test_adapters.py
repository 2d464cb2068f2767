"""Every adapter by peft: it learns, resumes to the bit, and is saved, loaded, merged, read by others as trained."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from toy import conversations, tune_in
from transformers import AutoModelForCausalLM

from tuneloop.core import jsonl
from tuneloop.core.errors import ModelError
from tuneloop.core.runs import Run
from tuneloop.forward import objective as forward
from tuneloop.generate.transformers_engine import TransformersEngine
from tuneloop.models import adapters
from tuneloop.models.config import ModelConfig
from tuneloop.models.find import find_base
from tuneloop.models.load import load_model, model_from
from tuneloop.models.merge import logits, merge, prompt_ids
from tuneloop.models.tokenizer import load_tokenizer
from tuneloop.render.template import Renderer
from tuneloop.track import metrics
from tuneloop.tune import train as stage
from tuneloop.tune.optimizer import MasterOptimizer

Make = Callable[..., Path]
NAMES = ("llama", "gpt2", "qwen2")  # plain; transposed matrices, tied head; biases
SMALL = {"rank": 4, "alpha": 8}
METHODS: dict[str, Any] = {
    "lora": {"lora": {**SMALL, "dropout": 0.1, "plus_ratio": 4}},
    "patterns": {"lora": {**SMALL, "rslora": True, "rank_pattern": {"c_fc": 2, "up_proj": 2}, "layers": [-1]}},
    "outer": {"lora": {**SMALL, "targets": ["auto", "embeddings", "head"]}},
    "whole head": {"lora": {**SMALL, "modules_to_save": ["head"]}},
    "gaussian": {"lora": {**SMALL, "init": "gaussian"}},
    "orthogonal": {"lora": {**SMALL, "init": "orthogonal"}},
    "pissa": {"lora": {**SMALL, "init": "pissa"}},
    "pissa_niter_4": {"lora": {**SMALL, "init": "pissa_niter_4", "rslora": True}},
    "olora": {"lora": {**SMALL, "init": "olora"}},
    "dora": {"dora": {**SMALL, "dropout": 0.1}},
    "dora pissa": {"dora": {**SMALL, "init": "pissa"}},
    "qlora": {"qlora": {**SMALL, "dropout": 0.1}},
    "qlora 8": {"qlora": {**SMALL, "bits": 8}},
    "ia3": "ia3",
}
MAIN = ("lora", "pissa", "dora", "qlora", "qlora 8", "ia3")
CASES = [(key, name) for key in METHODS for name in NAMES if key in MAIN or name == "gpt2"]
RATES = {"ia3": 0.3, "outer": 3e-3, "whole head": 3e-3}


def method_of(key: str, name: str) -> Any:
    """The method, with the names of layers that this architecture has."""
    method = METHODS[key]
    if key == "patterns":
        has = "c_fc" if name == "gpt2" else "up_proj"
        return {"lora": {**method["lora"], "rank_pattern": {has: 2}, "alpha_pattern": {has: 3}}}
    return method


def quantised(key: str) -> bool:
    if key.startswith("qlora"):
        pytest.importorskip("bitsandbytes")
    return key.startswith("qlora")


def trained_by(key: str, name: str, folder: Path, root: Path, monkeypatch: pytest.MonkeyPatch, **config: Any) -> Any:
    """(the run, what it leaves, the model as it was after the last step)."""
    kept: list[Any] = []
    check = stage.check

    def kept_and_checked(job: Any, *rest: Any) -> None:
        kept.append(job.objective.model)
        check(job, *rest)

    monkeypatch.setattr(stage, "check", kept_and_checked)
    values = {"steps": 20, "batch_size": 12, "learning_rate": RATES.get(key, 1e-2), **config}
    run, tuned = tune_in(root, {"base": str(folder)}, method=method_of(key, name), **values)
    forward.use_standard(forward.core_of(kept[0]))
    return run, tuned, kept[0].eval()


@pytest.mark.parametrize(("key", "name"), CASES)
def test_tuned_is_saved_is_merged_is_read_by_others(
    key: str, name: str, model_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = quantised(key)
    run, tuned, trained = trained_by(key, name, model_folder(name), tmp_path, monkeypatch)
    losses = [row["loss"] for row in metrics.read(run.path / "metrics.jsonl")]
    assert losses[-1] < 0.8 * losses[0]
    base = replace(find_base(ModelConfig(base=str(model_folder(name)))), adapter=tuned.folder)
    batch = prompt_ids(load_tokenizer(base))
    expected = logits(trained, batch)
    spread = float(expected.std())

    loaded = adapters.load_with_adapter(base, torch.float32)
    exact = 0.0 if not trained_on_another_base(key) else 1e-4 * spread
    assert float((logits(loaded, batch) - expected).abs().max()) <= exact, "saved = loaded"

    full = logits(adapters.attach(load_model(base, torch.float32), tuned.folder, base), batch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base.path), str(tuned.folder)).eval()
    assert float((logits(plain, batch) - full).abs().max()) <= 1e-5 * spread, "what any other tool would load"

    check = merge(base, tuned.folder, tmp_path / "merged")
    assert check.passed and check.effect > 100 * check.max_abs
    merged = logits(model_from(tmp_path / "merged", torch.float32), batch)
    assert float((merged - full).abs().max()) < 1e-4 * spread, "merged = adapter on the full base"
    assert (check.trained_on is not None) is small and (check.trained_kl is not None) is small
    if small:
        assert 0 < check.trained_kl < check.effect_kl and "trained on a base in" in str(check)  # type: ignore[operator]
        assert torch.equal(full, expected) is False
    else:
        assert float((full - expected).abs().max()) <= exact

    renderer = Renderer(load_tokenizer(find_base(ModelConfig(base=str(tuned.folder)))))
    prompts = [renderer.prompt(example.prompt, example.tools) for example in conversations(3)]
    options: dict[str, Any] = {"max_new_tokens": 5, "stop_ids": [9_999]}
    engines = [TransformersEngine(model, renderer) for model in (trained, loaded)]
    answers = [[done.ids for done in engine.complete(prompts, **options)] for engine in engines]
    assert answers[0] == answers[1]


def trained_on_another_base(key: str) -> bool:
    return "pissa" in key or key == "olora"


@pytest.mark.parametrize(("key", "name"), CASES)
def test_resumed_is_uninterrupted(
    key: str, name: str, model_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantised(key)
    model = {"base": str(model_folder(name))}
    values: dict[str, Any] = {
        "method": method_of(key, name), "steps": 6, "save_every": 2, "val": conversations(4, 50),
        "validation": {"every": 2}, "learning_rate": 1e-3,
    }  # fmt: skip
    _, whole = tune_in(tmp_path / "whole", model, **values)
    step, done = MasterOptimizer.step, 0

    def killed(*arguments: Any) -> None:
        nonlocal done
        done += 1
        if done == 4:
            raise KeyboardInterrupt
        step(*arguments)

    monkeypatch.setattr(MasterOptimizer, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        tune_in(tmp_path / "broken", model, **values)
    monkeypatch.undo()
    (broken,) = [Run.open(path) for path in (tmp_path / "broken").iterdir()]
    _, again = tune_in(tmp_path / "broken", model, run=broken, **values)
    one, two = (load_file(tuned.folder / adapters.WEIGHTS) for tuned in (whole, again))
    assert one.keys() == two.keys() and all(torch.equal(one[tensor], two[tensor]) for tensor in one)


@pytest.mark.parametrize(("key", "name"), CASES)
def test_training_goes_on_in_bf16(key: str, name: str, model_folder: Make, tmp_path: Path) -> None:
    """bf16 is exported as trained, and what was exported can be trained further."""
    quantised(key)
    model = {"base": str(model_folder(name)), "dtype": "bf16"}
    method = method_of(key, name)
    run, first = tune_in(tmp_path, model, method=method, steps=4, batch_size=12)
    if trained_on_another_base(key):  # what was exported is an ordinary LoRA of twice the rank
        (kind,) = method
        method = {kind: {**method[kind], "rank": 8, "alpha": 8 * (2**0.5 if "niter" in key else 2), "init": "kaiming"}}
    run2, _ = tune_in(tmp_path, {**model, "adapter": str(first.folder)}, method=method, steps=2, batch_size=12)
    first_losses, losses = ([row["loss"] for row in metrics.read(r.path / "metrics.jsonl")] for r in (run, run2))
    assert losses[0] < first_losses[0] and losses[0] == pytest.approx(first_losses[-1], rel=0.2)


def test_an_adapter_knows_in_which_bits_its_base_was_held(model_folder: Make, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    _, tuned = tune_in(tmp_path, {"base": str(model_folder())}, method="qlora", steps=2)
    record = adapters.read_record(tuned.folder)
    assert record is not None and record.quantization == "nf4"
    served = adapters.load_with_adapter(find_base(ModelConfig(base=str(tuned.folder))), torch.float32)
    assert any(type(module).__name__ == "Linear4bit" for module in served.modules())
    path = tuned.folder / adapters.RECORD
    value = jsonl.read(path)
    jsonl.write(path, {**value, "base": {**value["base"], "quantization": "int3"}})
    with pytest.raises(ModelError, match="held in 'int3'"):
        adapters.read_record(tuned.folder)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ({"lora": {"targets": ["q_prj"]}}, r"'q_prj' fits no.*mean 'q_proj'.*layers to adapt are q_proj, k"),
        ({"lora": {"targets": "q_proj"}}, r"'q_proj' fits no layer"),  # a text is a regular expression for whole names
        ({"lora": {"targets": "(" }}, r"no regular expression"),
        ({"lora": {"layers": [2]}}, r"no layer 2, only 0 to 1"),
        ({"lora": {"targets": ["head"], "modules_to_save": ["hat"]}}, r"no module 'hat'"),
        ({"lora": {"rank_pattern": {"up": 3}}}, r"rank_pattern: 'up' fits none of the 14"),
        ({"lora": {"init": "pissa", "rank": 40}}, r"pissa takes rank 40 out of a matrix of 32 × 32"),
        ({"ia3": {"targets": ["key"]}}, r"targets: 'key' fits no layer"),
        ({"dora": {"layers": []}}, r"none of them stands in the layers \[\]"),
    ],
)  # fmt: skip
def test_what_fits_nothing_is_named(method: Any, words: str, tiny_model: Callable[..., Any]) -> None:
    from tuneloop.tune.methods import FAMILY

    with pytest.raises(ModelError, match=re.compile(words)):
        FAMILY.make(method).apply(tiny_model())
