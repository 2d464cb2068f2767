"""Every architecture by every method: it learns; what is exported, loaded, merged and served is what was trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import PACKED, PADDED
from toy import conversations, tune_in

from tuneloop.forward import objective as forward
from tuneloop.generate.transformers_engine import TransformersEngine
from tuneloop.models import adapters
from tuneloop.models.config import ModelConfig
from tuneloop.models.find import find_base
from tuneloop.models.load import load_tokenizer, model_from
from tuneloop.models.merge import logits, merge, prompt_ids
from tuneloop.render.template import Renderer
from tuneloop.track import metrics
from tuneloop.tune import train as stage

METHODS: dict[str, Any] = {"full": "full", "lora": {"lora": {"rank": 4, "alpha": 8}}}


@pytest.mark.parametrize("name", (*PACKED, *PADDED))
@pytest.mark.parametrize("method", METHODS)
def test_tuned_is_exported_is_merged_is_served(
    method: str, name: str, model_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Any] = []
    export = stage._export
    monkeypatch.setattr(stage, "_export", lambda trained, *rest: (kept.append(trained), export(trained, *rest)))
    base = find_base(ModelConfig(base=str(model_folder(name))))
    run, tuned = tune_in(tmp_path, {"base": str(base.path)}, method=METHODS[method], batch_size=12)
    losses = [row["loss"] for row in metrics.read(run.path / "metrics.jsonl")]
    assert len(losses) == 5 and losses[-1] < 0.9 * losses[0]

    trained = kept[0].eval()
    forward.use_standard(forward.core_of(trained))
    tokenizer = load_tokenizer(base)
    batch = prompt_ids(tokenizer)
    expected = logits(trained, batch)
    if method == "full":
        loaded: Any = model_from(tuned.folder, torch.float32)
        merged = loaded
    else:
        loaded = adapters.load_with_adapter(replace(base, adapter=tuned.folder), torch.float32)
        check = merge(base, tuned.folder, tmp_path / "merged")
        assert check.passed and check.effect > 100 * check.max_abs
        merged = model_from(tmp_path / "merged", torch.float32)
    assert torch.equal(logits(loaded, batch), expected), "exported = trained, saved = loaded"
    spread = float(expected.std())
    assert float((logits(merged, batch) - expected).abs().max()) < 1e-4 * spread, "merged = adapter"
    start = logits(model_from(base.path, torch.float32), batch)
    assert float((start - expected).abs().max()) > 0.1 * spread, "tuning changed something"

    # what the standard loader of any other tool would do with the folder
    renderer = Renderer(load_tokenizer(find_base(ModelConfig(base=str(tuned.folder)))))
    prompts = [renderer.prompt(example.prompt, example.tools) for example in conversations(3)]
    options: dict[str, Any] = {"max_new_tokens": 5, "stop_ids": renderer.stop_ids}
    answers = [
        [done.ids for done in TransformersEngine(model, renderer).complete(prompts, **options)]
        for model in (loaded, merged)
    ]
    assert answers[0] == answers[1] and any(answers[0])


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_bf16_is_exported_as_trained(name: str, model_folder: Callable[..., Path], tmp_path: Path) -> None:
    for method in METHODS.values():
        _, tuned = tune_in(tmp_path, {"base": str(model_folder(name)), "dtype": "bf16"}, method=method, steps=2)
        assert tuned.folder.is_dir()


def test_new_weights_are_drawn_again_from_the_seed(
    architecture: Callable[..., Any], tokenizer_folder: Path, tmp_path: Path
) -> None:
    """An adapter on a new architecture: its base exists only as config and seed."""
    new = {"architecture": architecture("llama", initializer_range=0.2), "tokenizer": str(tokenizer_folder)}
    run, tuned = tune_in(tmp_path, new, seed=13)
    served = find_base(ModelConfig(base=str(run.path)))
    one = adapters.load_with_adapter(served, torch.float32, seed=1)
    two = adapters.load_with_adapter(find_base(ModelConfig(base=str(tuned.folder))), torch.float32, seed=2)
    batch = prompt_ids(load_tokenizer(served))
    assert torch.equal(logits(one, batch), logits(two, batch))


def test_training_prefix_is_inference_prompt(tiny_tokenizer: Any) -> None:
    renderer = Renderer(tiny_tokenizer)
    for example in conversations(6):
        (rendered,) = renderer.render(example)
        for index, message in enumerate(example.messages):
            if message.role != "assistant":
                continue
            prompt = renderer.prompt(example.messages[:index])
            assert rendered.ids[: len(prompt)].tolist() == prompt
            assert rendered.weights[len(prompt)] == 1 and rendered.weights[len(prompt) - 1] == 0
            assert renderer.answer_text(rendered.ids[len(prompt) :].tolist()) == message.content
        assert int(rendered.ids[rendered.weights > 0][-1]) in renderer.stop_ids
