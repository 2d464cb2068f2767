"""The memory estimate holds against what PyTorch really keeps; the precision is picked for a reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from architectures import PACKED, PADDED

from tuneloop.forward.objective import trunk_of
from tuneloop.models import fit
from tuneloop.models.precision import matmul_rate, pick_dtype

WIDE: dict[str, Any] = {"hidden_size": 128, "intermediate_size": 320, "num_hidden_layers": 4, "head_dim": 32}
ROUTED = {**WIDE, "moe_intermediate_size": 64}
LATENT = {"q_lora_rank": 64, "kv_lora_rank": 32, "qk_rope_head_dim": 16, "qk_nope_head_dim": 16, "v_head_dim": 16}
SHAPES: dict[str, dict[str, Any]] = {
    "llama": WIDE,
    "qwen3": WIDE,
    "mistral": WIDE,
    "gpt2": {"n_embd": 128, "n_layer": 4},
    "mixtral": WIDE,
    "qwen3_moe": ROUTED,
    "deepseek_v2": {**ROUTED, **LATENT, "head_dim": None},
    "deepseek_v3": {**ROUTED, **LATENT, "head_dim": 16},
    "mamba2": {
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "num_heads": 16,
        "head_dim": 16,
        "state_size": 16,
        "chunk_size": 64,
    },
}


@pytest.mark.parametrize("name", (*PACKED, *PADDED))
def test_parameters_are_counted_exactly(name: str, tiny_model: Callable[..., Any]) -> None:
    model = tiny_model(name)
    found = fit.estimate(model.config, tokens_per_step=64, dtype=torch.bfloat16)
    total = sum(parameter.numel() for parameter in model.parameters())
    assert found.parameters == found.trainable == total
    assert found.weights == total * (4 + 2)
    assert found.gradients + found.optimizer == total * 12
    lora = fit.estimate(model.config, tokens_per_step=64, dtype=torch.bfloat16, trainable=1000, beside=True)
    assert lora.parameters == total + 1000
    assert lora.weights == total * 2 + 1000 * 6
    assert lora.flops_per_token < found.flops_per_token


@pytest.mark.parametrize("name", SHAPES)
def test_activations_are_near_what_autograd_saves(name: str, tiny_model: Callable[..., Any]) -> None:
    model = tiny_model(name, **SHAPES[name]).train()
    parameters = {parameter.data_ptr() for parameter in model.parameters()}
    saved: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.randint(0, 400, (1, 256))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = trunk_of(model)(input_ids=ids)
    measured = sum(saved.values())
    estimated = fit.activation_bytes(model.config, 256, 4, checkpointing=False)
    del kept
    assert 0.6 < estimated / measured < 1.6, estimated / measured
    assert fit.activation_bytes(model.config, 256, 4, checkpointing=True) < 0.5 * estimated


def test_a_token_meets_only_its_experts(tiny_model: Callable[..., Any]) -> None:
    """DeepSeek-V3 has a dense first layer, then 2 of 4 experts of 3 · 32 · 16 weights and a shared one."""
    model = tiny_model("deepseek_v3")
    total, active, _ = fit.count_parameters(model.config)
    assert total - active == model.get_input_embeddings().weight.numel() + 2 * 3 * 32 * 16


def test_lines_say_when_it_does_not_fit(tiny_model: Callable[..., Any]) -> None:
    found = fit.estimate(tiny_model().config, tokens_per_step=64, dtype=torch.float32)
    assert found.fits
    tight = replace(found, available=found.total - 1)
    assert not tight.fits
    assert "does not fit" in "\n".join(tight.lines())
    assert found.seconds(1000, 1e9) > 0


def test_precision() -> None:
    assert pick_dtype("fp16") == (torch.float16, "fp16: asked for in the recipe")
    dtype, reason = pick_dtype("auto", "cpu")
    assert dtype in (torch.bfloat16, torch.float32)
    assert reason.startswith(("bf16: ", "fp32: "))
    assert matmul_rate(torch.float32, size=64) > 1e6


def test_measuring_the_machine_draws_nothing_from_the_run() -> None:
    """It is measured once a process: a second training in the same process would draw otherwise."""
    matmul_rate.cache_clear()
    before = torch.get_rng_state()
    assert matmul_rate(torch.float32) > 0
    assert torch.equal(torch.get_rng_state(), before)
