"""Linear layers in 8 and 4 bits: the function they compute, and which layers of a model take part."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers.pytorch_utils import Conv1D

from tuneloop.core.errors import ModelError
from tuneloop.models import fewer_bits
from tuneloop.models.config import ModelConfig
from tuneloop.models.fewer_bits import FEW, Int4Groups, Int8Rows, TiedEmbedding, hold
from tuneloop.models.find import find_base
from tuneloop.models.load import load_model
from tuneloop.models.mixed import MixedAdapters

FLAGS = torch.cpu.get_capabilities()
pytestmark = pytest.mark.skipif(
    not (FLAGS.get("avx512_bf16") or FLAGS.get("amx_bf16")), reason="needs a CPU that computes bf16"
)
BASE = find_base(ModelConfig(base="embedded"))
SIZES = [(16, 32), (48, 96), (192, 576)]


def load(dtype: torch.dtype = torch.bfloat16) -> Any:
    return load_model(BASE, dtype, seed=0, device="cpu")


def weights(outputs: int, inputs: int) -> Tensor:
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(outputs)).bfloat16() / 8


def relative(out: Tensor, exact: Tensor) -> float:
    return float((out.double() - exact).abs().max() / exact.abs().max())


@pytest.mark.parametrize("rows", [1, 3, FEW, FEW + 1, 200])
@pytest.mark.parametrize("kind", [Int8Rows, Int4Groups])
@pytest.mark.parametrize(("outputs", "inputs"), SIZES)
@pytest.mark.parametrize("biased", [False, True])
def test_a_layer_computes_the_product_with_the_weights_it_stands_for(
    kind: Any, rows: int, outputs: int, inputs: int, biased: bool
) -> None:
    bias = torch.linspace(-1, 1, outputs).bfloat16() if biased else None
    layer, x = kind(weights(outputs, inputs), bias), torch.randn(1, rows, inputs).bfloat16()
    exact = x.double() @ layer.dense().double().t() + (0 if bias is None else bias.double())
    out = layer(x)
    assert out.dtype == torch.bfloat16 and out.shape == (1, rows, outputs)
    assert relative(out, exact) < 2e-2  # two or three roundings to bf16


def test_no_weight_in_eight_bits_is_off_by_more_than_half_a_step() -> None:
    weight = torch.cat([weights(15, 64), torch.zeros(1, 64, dtype=torch.bfloat16)])
    layer = Int8Rows(weight, None)
    assert bool(((layer.dense() - weight.float()).abs() <= layer.scale.float()[:, None] * 0.5001).all())
    assert bool((layer.weight[-1] == 0).all())


def test_a_group_in_four_bits_is_within_its_range_and_what_lies_on_a_grid_is_kept() -> None:
    on_grid = (torch.arange(64) % 16).float().repeat(16, 1) / 16 - 0.5
    assert torch.equal(Int4Groups(on_grid.bfloat16(), None).dense(), on_grid)
    weight = weights(16, 64)
    off = (Int4Groups(weight, None).dense() - weight.float()).square().mean()
    plain = weight.float().unflatten(1, (-1, 32))
    low, step = plain.amin(-1, keepdim=True), (plain.amax(-1, keepdim=True) - plain.amin(-1, keepdim=True)) / 15
    assert off <= (((plain - low) / step).round() * step + low - plain).square().mean() * 1.02  # the search never loses
    assert torch.equal(Int4Groups(torch.ones(16, 32).bfloat16(), None).dense(), torch.ones(16, 32))


@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_a_tied_vocabulary_is_held_once_and_the_model_can_be_had_back(scheme: Any) -> None:
    model = load()
    ids = torch.arange(20)[None] + 40
    with torch.inference_mode():
        before = model(ids).logits
        head, words = model.get_output_embeddings(), model.get_input_embeddings()
        fewer = hold(model, scheme)
        coded = model.get_output_embeddings()
        assert isinstance(coded, Int8Rows) and isinstance(model.get_input_embeddings(), TiedEmbedding)
        assert torch.equal(model.get_input_embeddings()(ids)[0].float(), coded.dense()[ids[0]].bfloat16().float())
        after = model(ids).logits
        assert 0 < relative(after, before.double()) < 0.5
        with fewer.full():
            assert model.get_output_embeddings() is head and model.get_input_embeddings() is words
            assert torch.equal(model(ids).logits, before)
        assert torch.equal(model(ids).logits, after)
    held = fewer_bits._bytes(model)
    assert held < {"int8": 0.55, "int4": 0.5}[scheme] * sum(2 * one.numel() for one in load().parameters())


def test_layers_of_other_shapes_stay_in_full_precision() -> None:
    config = LlamaConfig(
        vocab_size=70, hidden_size=64, intermediate_size=40, num_hidden_layers=1, num_attention_heads=2
    )
    model: Any = LlamaForCausalLM(config).bfloat16().eval()
    hold(model, "int4")
    layer = model.model.layers[0]
    assert type(layer.mlp.down_proj) is nn.Linear and type(layer.mlp.up_proj) is nn.Linear  # 40 in, 40 out
    assert isinstance(layer.self_attn.q_proj, Int4Groups) and isinstance(model.lm_head, Int8Rows)
    assert bool(torch.isfinite(model(torch.arange(50)[None]).logits).all())
    config = LlamaConfig(
        vocab_size=70, hidden_size=24, intermediate_size=40, num_hidden_layers=1, num_attention_heads=2
    )
    with pytest.raises(ModelError, match=r"Set serve\.quantize\.scheme: none"):
        hold(LlamaForCausalLM(config).bfloat16(), "int8")


def test_gpt2_stores_its_weights_the_other_way_round() -> None:
    model: Any = GPT2LMHeadModel(GPT2Config(vocab_size=96, n_embd=32, n_layer=1, n_head=2)).bfloat16().eval()
    ids = torch.arange(30)[None]
    with torch.inference_mode():
        before = model(ids).logits.double()
        hold(model, "int8")
        assert not any(isinstance(module, Conv1D) for module in model.modules())
        assert relative(model(ids).logits, before) < 0.1


def test_machines_and_models_that_cannot_are_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"float32\. Set serve\.quantize\.scheme: none"):
        hold(load(torch.float32), "int8")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "aarch64"})
    with pytest.raises(ModelError, match=r"aarch64.*Set serve\.quantize\.scheme: none"):
        hold(load(), "int8")


@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_an_adapter_adds_to_fewer_bits_what_it_adds_to_the_weights_they_stand_for(tmp_path: Any, scheme: Any) -> None:

    torch.manual_seed(1)
    adapted = get_peft_model(load(), LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"]))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.3)
    adapted.save_pretrained(tmp_path)
    held, dense = load(), load()
    hold(held, scheme)
    for name, module in held.named_modules():
        if isinstance(module, Int8Rows | Int4Groups):
            dense.get_submodule(name).weight.data = module.dense().bfloat16()
    ids = torch.arange(30)[None] + 40
    logits = []
    with torch.inference_mode():
        for model in (held, dense):
            mixed = MixedAdapters(model, BASE)
            mixed.add("one", tmp_path)
            plain = model(ids).logits
            with mixed.routed({"one": None}):
                logits.append(model(ids).logits)
            assert relative(logits[-1], plain.double()) > 0.1
    assert relative(logits[0], logits[1].double()) < 0.05


@pytest.mark.parametrize("kind", [Int8Rows, Int4Groups])
def test_a_decoding_step_computes_a_row_alike_whoever_is_beside_it(kind: Any) -> None:
    layer, x = kind(weights(192, 576), None), torch.randn(FEW, 576).bfloat16()
    together = layer(x)
    alone = torch.cat([layer(x[row : row + 1]) for row in range(FEW)])
    for one, other in ((alone, together), (layer(x[:5]), together[:5])):  # the same bits on AVX512
        torch.testing.assert_close(one, other, rtol=2e-2, atol=2e-2)
