"""Partial, bottleneck and virtual-token methods by architecture, through the whole stage: learnt, saved, resumed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from toy import conversations, tune_in

from tuneloop.core.errors import ModelError
from tuneloop.core.runs import Run
from tuneloop.forward import objective as forward
from tuneloop.generate.transformers_engine import TransformersEngine
from tuneloop.models import adapters
from tuneloop.models.config import ModelConfig
from tuneloop.models.find import find_base
from tuneloop.models.load import config_of, model_from
from tuneloop.models.merge import logits, merge, prompt_ids
from tuneloop.models.tokenizer import load_tokenizer
from tuneloop.render.template import Renderer
from tuneloop.track import metrics
from tuneloop.tune import train as stage
from tuneloop.tune.config import TuneConfig
from tuneloop.tune.memory import trainable_parameters
from tuneloop.tune.methods import Setting
from tuneloop.tune.optimizer import MasterOptimizer

Folder = Callable[..., Path]
METHODS: dict[str, Any] = {
    "freeze": {"freeze": {"layers": 1}},
    "bitfit": "bitfit",
    "sparse": {"sparse": {"fraction": 0.05, "rows": 6}},
    "adapter": {"adapter": {"reduction": 4, "dropout": 0.1}},
    "prompt": {"prompt": {"tokens": 6}},
    "prompt-text": {"prompt": {"text": "Add the two numbers. 加"}},
    "prefix": {"prefix": {"tokens": 6}},
    "prefix-text": {"prefix": {"text": "Add the two numbers. 加"}},
    "prefix-projected": {"prefix": {"tokens": 6, "projection": True, "projection_size": 16}},
}
BESIDE = ("adapter", "prompt", "prefix")
RATES = {"prompt": 0.3, "prefix": 0.3, "prefix-projected": 0.03, "bitfit": 0.1, "adapter": 0.02}


def tuned_by(method: str, base: Path, root: Path, steps: int, dtype: str = "fp32", **config: Any) -> Any:
    rate = RATES.get(method) or RATES.get(method.partition("-")[0], 0.01)
    return tune_in(
        root, {"base": str(base), "dtype": dtype}, method=METHODS[method], steps=steps, learning_rate=rate, **config
    )


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen2"])
@pytest.mark.parametrize("method", METHODS)
def test_learnt_saved_loaded_generated(
    method: str, name: str, model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Any] = []
    export = stage.export
    monkeypatch.setattr(stage, "export", lambda trained, *rest: (kept.append(trained), export(trained, *rest)))
    base = find_base(ModelConfig(base=str(model_folder(name))))
    run, tuned = tuned_by(method, base.path, tmp_path, 20, batch_size=12)
    losses = [row["loss"] for row in metrics.read(run.path / "metrics.jsonl")]
    assert len(losses) == 20 and losses[-1] < 0.93 * losses[0]
    trained = kept[0].eval()
    forward.use_standard(forward.core_of(trained))
    batch = prompt_ids(load_tokenizer(base))
    expected = logits(trained, batch)
    if method.startswith(BESIDE):
        loaded: Any = adapters.load_with_adapter(replace(base, adapter=tuned.folder), torch.float32)
        plain = PeftModel.from_pretrained(model_from(base.path, torch.float32), str(tuned.folder)).eval()
        assert torch.equal(logits(plain, batch), expected), "peft alone reads it"
        with pytest.raises(ModelError, match=r"cannot be merged: .* tune with method lora"):
            merge(base, tuned.folder, tmp_path / "merged")
        assert not (tmp_path / "merged").exists()
    else:
        loaded = model_from(tuned.folder, torch.float32)
    assert torch.equal(logits(loaded, batch), expected), "exported = trained, saved = loaded"
    renderer = Renderer(load_tokenizer(find_base(ModelConfig(base=str(tuned.folder)))))
    prompts = [renderer.prompt(example.prompt, example.tools) for example in conversations(3)]
    options: dict[str, Any] = {"max_new_tokens": 5, "stop_ids": ()}
    answers = [TransformersEngine(model, renderer).complete(prompts, **options) for model in (loaded, trained)]
    assert answers[0] == answers[1] and all(len(done.ids) == 5 for done in answers[0])


@pytest.mark.parametrize("method", METHODS)
def test_counted_on_the_meta_device(method: str, model_folder: Folder, tmp_path: Path) -> None:
    for name in ("llama", "gpt2", "qwen2"):
        base = find_base(ModelConfig(base=str(model_folder(name))))
        config = TuneConfig.model_validate({"method": METHODS[method]})
        trained = config.method.apply(model_from(base.path, torch.float32))
        counted = trainable_parameters(config, config_of(base))
        assert counted == config.method.count(trained) > 0
    # by hand, for Qwen2: hidden 32, two key/value heads of 8, two layers, inner width 48
    of_layer = 32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 48 + (32 + 16 + 16) + 2 * 32
    by_hand = {
        "freeze": of_layer, "bitfit": 2 * 64, "sparse": round(0.05 * 2 * (of_layer - 64 - 64)),
        "adapter": 4 * (2 * 32 * 8 + 8 + 32), "prompt": 6 * 32, "prefix": 6 * 2 * 2 * 16,
        "prefix-projected": 6 * 16 + 16 * 16 + 16 + 17 * 64, "prompt-text": 20 * 32, "prefix-text": 20 * 64,
    }  # fmt: skip
    assert counted == by_hand[method]


class Killed(Exception):
    pass


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen2"])
@pytest.mark.parametrize("method", METHODS)
def test_resumed_is_uninterrupted(
    method: str, name: str, model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"save_every": 2, "batch_size": 5}
    _, whole = tuned_by(method, model_folder(name), tmp_path / "whole", 5, **options)
    step, done = MasterOptimizer.step, 0

    def killed(*arguments: Any) -> None:
        nonlocal done
        if done == 3:
            raise Killed
        done += 1
        step(*arguments)

    monkeypatch.setattr(MasterOptimizer, "step", killed)
    with pytest.raises(Killed):
        tuned_by(method, model_folder(name), tmp_path / "broken", 5, **options)
    monkeypatch.undo()
    (run,) = [Run.open(path) for path in (tmp_path / "broken").iterdir()]
    assert (run.out / "checkpoints" / "step-0000002").is_dir()
    torch.rand(3)  # whatever happened in between must not matter
    _, resumed = tuned_by(method, model_folder(name), tmp_path / "broken", 5, run=run, **options)
    file = adapters.WEIGHTS if whole.adapter else "model.safetensors"
    one, two = (load_file(tuned.folder / file) for tuned in (whole, resumed))
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen2"])
@pytest.mark.parametrize("method", METHODS)
def test_bf16(method: str, name: str, model_folder: Folder, tmp_path: Path) -> None:
    """The stage itself compares what it wrote with what was trained."""
    run, tuned = tuned_by(method, model_folder(name), tmp_path, 8, dtype="bf16", batch_size=12)
    losses = [row["loss"] for row in metrics.read(run.path / "metrics.jsonl")]
    assert losses[-1] < losses[0]
    file = adapters.WEIGHTS if tuned.adapter else "model.safetensors"
    assert {tensor.dtype for tensor in load_file(tuned.folder / file).values()} == {torch.bfloat16}


def test_virtual_tokens_start_as_the_text(model_folder: Folder, tmp_path: Path) -> None:
    """Without a step taken, a prompt or prefix of a text is that text before every row."""
    base = find_base(ModelConfig(base=str(model_folder())))
    tokenizer, batch = load_tokenizer(base), prompt_ids(load_tokenizer(base))
    text = "Add the two numbers. 加"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    model = model_from(base.path, torch.float32)
    expected = logits(model, [[*ids, *row] for row in batch])
    keep = torch.cat([torch.tensor([False] * len(ids) + [True] * len(row)) for row in batch])
    for method in ("prompt", "prefix"):
        choice = TuneConfig.model_validate({"method": {method: {"text": text, "tokens": len(ids)}}}).method
        trained = choice.apply(model_from(base.path, torch.float32))
        choice.initialise(trained, Setting(tokenizer, 7, lambda _: ()))
        rows = [trained(input_ids=torch.tensor([row])).logits[0, -len(row) :] for row in batch]
        torch.testing.assert_close(torch.cat(rows), expected[keep], rtol=1e-4, atol=1e-4)
    short = TuneConfig.model_validate({"method": {"prompt": {"text": text, "tokens": 3}}}).method
    with pytest.raises(ModelError, match=rf"text has {len(ids)} tokens and tokens is 3: write tokens: {len(ids)}"):
        short.initialise(short.apply(model), Setting(tokenizer, 7, lambda _: ()))
