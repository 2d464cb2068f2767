"""Bottleneck adapters: found in every architecture, start as the base, read by plain peft, refused by merge."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import PACKED
from peft import PeftModel

from tuneloop.core.errors import ModelError
from tuneloop.models import bottleneck
from tuneloop.tune.methods import FAMILY as METHODS

Make = Callable[..., Any]
IDS = torch.arange(3, 40)[None]


@pytest.mark.parametrize("name", PACKED)
def test_it_starts_as_the_base_and_plain_peft_reads_it(name: str, tiny_model: Make, tmp_path: Path) -> None:
    expected = tiny_model(name)(IDS).logits
    model = METHODS.make({"adapter": {"reduction": 4, "nonlinearity": "gelu", "scaling": 2}}).apply(tiny_model(name))
    assert torch.equal(model(IDS).logits, expected), "up starts at zero"
    trained = {key for key, p in model.named_parameters() if p.requires_grad}
    assert all("bottleneck_layers" in key for key in trained)
    assert sum(model.get_parameter(key).numel() for key in trained) == 2 * 2 * (2 * 32 * 8 + 8 + 32)
    for key in trained:
        torch.nn.init.normal_(model.get_parameter(key))
    model(IDS).logits.sum().backward()
    assert all((p.grad is not None) == (key in trained) for key, p in model.named_parameters())
    changed = model(IDS).logits
    assert not torch.allclose(changed, expected)
    model.save_pretrained(tmp_path)
    assert torch.equal(PeftModel.from_pretrained(tiny_model(name), tmp_path)(IDS).logits, changed)
    with model.disable_adapter():
        assert torch.equal(model(IDS).logits, expected)
    with pytest.raises(ValueError, match="cannot be merged"):
        model.merge_and_unload()


def test_places(tiny_model: Make) -> None:
    def places(name: str, wanted: list[str]) -> list[str]:
        return bottleneck.places(tiny_model(name), wanted)

    assert places("gpt2", ["mlp"]) == ["transformer.h.0.mlp.c_proj", "transformer.h.1.mlp.c_proj"]
    assert places("llama", ["attention"]) == [f"model.layers.{n}.self_attn.o_proj" for n in range(2)]
    # a block of experts is adapted as a whole: its first layer is dense
    assert places("deepseek_v3", ["mlp"]) == ["model.layers.0.mlp.down_proj", "model.layers.1.mlp"]


def test_a_model_without_attention(tiny_model: Make) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model("mamba", vocab_size=50, hidden_size=16, num_hidden_layers=2, state_size=4)
    model: Any = AutoModelForCausalLM.from_config(config)
    with pytest.raises(ModelError, match="no attention was found in the layers of MambaForCausalLM"):
        bottleneck.places(model, ["attention"])


def test_many_layers(tiny_model: Make, tmp_path: Path) -> None:
    """From 20 targets on peft shortens the list of names; the same modules must come back."""
    make = lambda: tiny_model("llama", num_hidden_layers=12)  # noqa: E731
    model = METHODS.make("adapter").apply(make())
    adapted = {key for key, module in model.named_modules() if isinstance(module, bottleneck.BottleneckLayer)}
    assert len(adapted) == 24
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(make(), tmp_path)
    assert {key for key, m in again.named_modules() if isinstance(m, bottleneck.BottleneckLayer)} == adapted
