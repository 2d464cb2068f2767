"""Adapters take every linear layer but head and routers, and stacked experts on request, on every architecture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from architectures import MOE, PACKED, PADDED
from toy import random_rows
from transformers import AutoModelForCausalLM

from tuneloop.core.errors import ModelError
from tuneloop.forward.batch import collate
from tuneloop.forward.objective import prepare
from tuneloop.models import targets
from tuneloop.tune.methods import FAMILY

Make = Callable[..., Any]


def adapted(trained: Any) -> set[str]:
    """Names of the base's weights that have an update."""
    names = [name for name, p in trained.named_parameters() if p.requires_grad]
    assert all(".lora_" in name for name in names)
    return {name.split(".lora_")[0].removeprefix("base_model.model.").replace(".base_layer", "") for name in names}


@pytest.mark.parametrize("name", (*PACKED, *PADDED))
def test_every_update_learns_and_no_router_has_one(name: str, tiny_model: Make) -> None:
    """What is adapted is what was meant, as peft changes names of feed-forwards in models with experts."""
    experts = name in MOE
    model = tiny_model(name)
    wanted = set(targets.linear_targets(model))
    stacked = {key.rpartition(".")[0] for key in targets.expert_parameters(model)}
    trained = FAMILY.make({"lora": {"rank": 2, "experts": experts}}).apply(model)
    assert adapted(trained) == wanted | stacked and bool(stacked) == experts
    assert not any(name.startswith(router) for name in wanted for router in targets.routers(model))
    rows = random_rows(6)
    objective, _ = prepare(trained, rows, 0)
    total, _ = objective(collate(rows, packed=objective.packed))
    total.backward()
    dead = [k for k, p in trained.named_parameters() if "lora_B" in k and (p.grad is None or not p.grad.any())]
    assert not dead, "an update that nothing reads learns nothing"


@pytest.mark.parametrize("name", ["llama", "deepseek_v2", "gpt_oss"])
def test_counted_on_the_meta_device_as_on_the_real_one(name: str, tiny_model: Make) -> None:
    method = FAMILY.make({"lora": {"rank": 3, "experts": name in MOE}})
    model = tiny_model(name)
    with torch.device("meta"):
        empty = method.apply(AutoModelForCausalLM.from_config(model.config))
    sizes = [sum(p.numel() for p in m.parameters() if p.requires_grad) for m in (empty, method.apply(model))]
    assert sizes[0] == sizes[1] > 0


def test_names_are_short_where_they_are_clear(tiny_model: Make) -> None:
    model = tiny_model("qwen2_moe")
    names = targets.linear_targets(model)
    assert targets.for_peft(model, names)["target_modules"] == [
        "down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj",
    ]  # fmt: skip
    first = [name for name in names if ".0." in name and name.endswith("q_proj")]
    assert targets.for_peft(model, first)["target_modules"] == ["0.self_attn.q_proj"]


def test_experts_are_refused_where_there_are_none(tiny_model: Make) -> None:
    with pytest.raises(ModelError, match="LlamaForCausalLM has no stacked experts"):
        FAMILY.make({"lora": {"experts": True}}).apply(tiny_model())


def test_dropout_beside_stacked_experts_is_refused(tiny_model: Make) -> None:
    with pytest.raises(ModelError, match=r"dropout.*Qwen3Moe"):
        FAMILY.make({"lora": {"experts": True, "dropout": 0.1}}).apply(tiny_model("qwen3_moe"))
