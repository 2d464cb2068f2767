"""Every architecture by every method: it learns; what is exported, loaded, merged and served is what was trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import choices
import conformance
import pytest
import torch
from architectures import PACKED, PADDED
from toy import conversations, tune_in

from tuneloop.core.errors import ModelError
from tuneloop.models import adapters
from tuneloop.models.config import ModelConfig
from tuneloop.models.find import find_base
from tuneloop.models.merge import logits, prompt_ids
from tuneloop.models.tokenizer import load_tokenizer
from tuneloop.render.template import Renderer

CORE = ("full", "lora", "lora + experts")
"""Methods that each run tests on every architecture; the others only on THREE, on all of them with -m matrix."""
THREE = ("llama", "gpt2", "qwen3_moe")
CASES = [
    pytest.param(method, name, marks=[] if method in CORE or name in THREE else [pytest.mark.matrix])
    for method in choices.METHODS
    for name in (*PACKED, *PADDED)
    if conformance.fits(method, name)
]


@pytest.mark.parametrize(("method", "name"), CASES)
def test_tuned_is_exported_is_merged_is_served(
    method: str, name: str, model_folder: Callable[..., Path], tmp_path: Path
) -> None:
    refused = choices.REFUSED.get((method, name))
    if refused:
        with pytest.raises(ModelError, match=refused):
            conformance.conform(model_folder(name), method, tmp_path, steps=1)
        return
    outcome = conformance.conform(model_folder(name), method, tmp_path, steps=6 if method in CORE else 20)
    assert outcome.packed == (name in PACKED)


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
