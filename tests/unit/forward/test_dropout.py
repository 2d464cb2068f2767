"""A model's own dropout: found wherever an architecture keeps it, set for training only, adapters' left alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from architectures import PACKED
from peft import LoraConfig, get_peft_model
from toy import random_rows

from tuneloop.core.errors import ModelError
from tuneloop.forward.attention import use_packed
from tuneloop.forward.batch import collate
from tuneloop.forward.dropout import Dropouts
from tuneloop.forward.objective import Objective

Make = Callable[..., Any]


def losses(model: Any, probability: float) -> list[float]:
    """Of the same rows under two random states."""
    use_packed(model)
    objective, batch = Objective(model, packed=True).train(), collate(random_rows(5), packed=True)
    out = []
    with Dropouts.of(model).set_to(probability), torch.no_grad():
        for seed in (1, 2):
            torch.manual_seed(seed)
            out.append(float(objective(batch)[0]))
    return out


@pytest.mark.parametrize("name", PACKED)
def test_on_it_draws_and_off_it_is_deterministic(name: str, tiny_model: Make) -> None:
    one, two = losses(tiny_model(name), 0.0)
    assert one == two
    one, two = losses(tiny_model(name), 0.3)
    assert one != two


def test_all_of_gpt2s(tiny_model: Make) -> None:
    model = tiny_model("gpt2")
    found = Dropouts.of(model)
    names = {name for _, _, name in found.places}
    assert {"transformer.drop", "transformer.h.0.attn.attn_dropout", "transformer.h.1.mlp.dropout"} <= names
    assert {"config.resid_pdrop", "config.embd_pdrop", "config.attn_pdrop"} <= names
    assert not any("summary" in name for name in names)
    before = [getattr(holder, key) for holder, key, _ in found.places]
    with found.set_to(0.25):
        assert {getattr(holder, key) for holder, key, _ in found.places} == {0.25}
    assert [getattr(holder, key) for holder, key, _ in found.places] == before and set(before) == {0.1}


def test_an_adapters_dropout_is_its_own(tiny_model: Make) -> None:
    model = tiny_model("gpt2")
    found = Dropouts.of(model)
    adapted = get_peft_model(model, LoraConfig(target_modules=["c_attn"], lora_dropout=0.5, fan_in_fan_out=True))
    with found.set_to(0.25):
        kept = [module.p for name, module in adapted.named_modules() if name.endswith("lora_dropout.default")]
    assert kept == [0.5, 0.5]


def test_a_model_without_any_says_what_there_is_instead() -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        "mamba2", vocab_size=50, hidden_size=32, num_hidden_layers=1, num_heads=8, head_dim=8, state_size=8,
        n_groups=1, chunk_size=8,
    )  # fmt: skip
    with pytest.raises(ModelError, match=r"Mamba2ForCausalLM has no dropout of its own.*lora\.dropout.*neftune"):
        Dropouts.of(AutoModelForCausalLM.from_config(config))
