"""The short way through a model gives the very bits of transformers' own, and steps aside for what it does not know.

Steps that are compiled give the same numbers but for rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tuneloop.generate import compiled, lean, slots
from tuneloop.generate.slots import Slots
from tuneloop.models.beside import beside
from tuneloop.models.fewer_bits import hold
from tuneloop.models.packed import pack

FLAGS = torch.cpu.get_capabilities()
PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [5, 6, 7, 20], [30, 31, 32, 33, 34, 35, 36, 37, 38]]


def logits(model: Any, short: bool) -> list[torch.Tensor]:
    """Of three prompts that join, one that goes on from known tokens, and three steps."""
    with torch.inference_mode(), slots.attending(model):
        rows = Slots(model, None, 0, 4)
        assert rows._trunk is not None
        if not short:
            rows._trunk = None
        found = [rows.join(PROMPTS)]
        found.append(rows.resume([([9, 10], [part[:4] for part in rows.parts(0)])]))
        return [*found, *(rows.step([3, 4, 5, 6]) for _ in range(3))]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("llama", {}),
        ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),
        ("qwen3", {}),
        ("mistral", {"sliding_window": 4}),
    ],
)
def test_the_short_way_gives_the_same_bits(
    tiny_model: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    changes: dict[str, Any],
    packed: bool,
) -> None:
    model = tiny_model(name, **changes).eval()
    if packed:
        pack(model)
    native = logits(model, True)
    monkeypatch.setattr(compiled, "kernels_for", lambda *_: None)
    plain = logits(model, False)
    for one, other in zip(logits(model, True), plain, strict=True):
        assert torch.equal(one, other)
    for one, other in zip(native, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "changes"), [("llama", {"attention_bias": True}), ("qwen3", {}), ("qwen2", {}), ("mistral", {})]
)
@pytest.mark.parametrize("hooked", ["", "mlp.up_proj", "self_attn.k_proj"])
def test_layers_side_by_side_give_the_same_numbers(
    tiny_model: Callable[..., Any], name: str, changes: dict[str, Any], hooked: str
) -> None:
    models = [tiny_model(name, **changes).eval() for _ in range(2)]
    for model in models:
        pack(model)
    lean.side_by_side(models[0])
    attention, mlp = models[0].model.layers[1].self_attn, models[0].model.layers[1].mlp
    assert beside([attention.q_proj, attention.k_proj, attention.v_proj]) and beside([mlp.gate_proj, mlp.up_proj])
    for model in models if hooked else []:
        layer = model.model.layers[1].get_submodule(hooked)
        layer.register_forward_hook(lambda module, given, out: out * 2 + given[0].sum(-1, keepdim=True))
    apart = logits(models[1], True)
    for short in (True, False):
        for one, other in zip(logits(models[0], short), apart, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not (FLAGS.get("avx512_bf16") or FLAGS.get("amx_bf16")), reason="needs a CPU that computes bf16")
@pytest.mark.parametrize("tied", [False, True])
def test_layers_in_8_bits_lie_side_by_side_too(tiny_model: Callable[..., Any], tied: bool) -> None:
    found = []
    for together in (False, True):
        model = tiny_model("llama", tie_word_embeddings=tied).eval().bfloat16()
        hold(model, "int8")
        if together:
            lean.side_by_side(model)
            mlp = model.model.layers[1].mlp
            assert beside([mlp.gate_proj, mlp.up_proj]) and model.device.type == "cpu"
        found.append(logits(model, True))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("name", ["gemma3_text", "phi3", "glm4", "gpt2"])
def test_other_architectures_go_their_own_way(tiny_model: Callable[..., Any], name: str) -> None:
    assert lean.trunk(tiny_model(name)) is None


@pytest.mark.parametrize("place", ["", "norm", "layers.1", "layers.1.self_attn", "layers.1.input_layernorm"])
def test_who_watches_is_not_passed_by(tiny_model: Callable[..., Any], place: str) -> None:
    model = tiny_model("llama")
    assert lean.trunk(model) is not None
    model.model.get_submodule(place).register_forward_hook(lambda *_: None)
    assert lean.trunk(model) is None


@pytest.mark.parametrize("place", ["mlp", "mlp.up_proj", "self_attn.q_proj", "self_attn.o_proj"])
def test_hooks_of_adapters_are_called(tiny_model: Callable[..., Any], place: str) -> None:
    plain, model = tiny_model("llama"), tiny_model("llama")
    pack(model)
    model.model.layers[1].get_submodule(place).register_forward_hook(lambda module, given, out: out + 1.0)
    watched = logits(model, True)
    for one, without, other in zip(watched, logits(plain, True), logits(model, False), strict=True):
        assert not torch.allclose(one, without, rtol=1e-2, atol=1e-2)
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
