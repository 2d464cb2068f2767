"""Bases in 4 and 8 bits: the same function and the same gradients at any time, counted right, missing ones said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.utils.integrations import dequantize_module_weight
from transformers.pytorch_utils import Conv1D

from tuneloop.core.errors import ModelError
from tuneloop.models import fit, quantize
from tuneloop.models.config import ModelConfig
from tuneloop.models.find import find_base
from tuneloop.models.load import load_model

IDS = torch.arange(3, 43)[None]
Make = Callable[..., Path]


def loss_and_gradient(model: Any, training: bool) -> tuple[float, torch.Tensor]:
    model.train(training)
    inputs = model.get_input_embeddings()(IDS).detach().requires_grad_(True)
    loss = model(inputs_embeds=inputs, labels=IDS).loss
    loss.backward()
    return float(loss), inputs.grad


def written_out(quantised: Any, model: Any) -> Any:
    """The full model with the values that the quantised one stands for."""
    for name, module in quantised.named_modules():
        if type(module).__name__ in ("Linear4bit", "Int8Linear"):
            weight = dequantize_module_weight(module).to(model.dtype)
            own = model.get_submodule(name).weight
            own.data = weight.T.contiguous() if isinstance(model.get_submodule(name), Conv1D) else weight
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_evaluation_changes_nothing(quantization: Any, name: str, dtype: torch.dtype, model_folder: Make) -> None:
    """bitsandbytes packs weights in the first evaluation without a gradient, and lost the gradient ever after."""
    pytest.importorskip("bitsandbytes")
    base = find_base(ModelConfig(base=str(model_folder(name))))
    model = load_model(base, dtype, quantization=quantization)
    before = loss_and_gradient(model, training=False)
    with torch.inference_mode():
        model.eval()(IDS)
    after = loss_and_gradient(model, training=False)
    assert before[0] == after[0] and torch.equal(before[1], after[1])
    if name == "llama":  # GPT-2 drops out in training
        trained = loss_and_gradient(model, training=True)
        assert trained[0] == after[0] and torch.equal(trained[1], after[1])
    rounded = loss_and_gradient(written_out(model, load_model(base, dtype)), training=False)
    assert after[0] == pytest.approx(rounded[0], rel=1e-5 if dtype is torch.float32 else 1e-2)
    similar = torch.cosine_similarity(after[1].flatten().double(), rounded[1].flatten().double(), dim=0)
    assert similar > (0.9999 if dtype is torch.float32 else 0.99)
    held = {type(module).__name__ for module in model.modules()}
    assert held & {"Linear4bit", "Int8Linear"} and type(model.get_output_embeddings()) is torch.nn.Linear


def test_the_product_with_8_bits_has_the_right_gradient() -> None:
    pytest.importorskip("bitsandbytes")
    from tuneloop.models.int8 import Int8Product

    torch.manual_seed(0)
    codes, scale = torch.randint(-127, 128, (5, 4), dtype=torch.int8), torch.rand(5, dtype=torch.float64)
    x, bias = torch.randn(3, 4, dtype=torch.float64, requires_grad=True), torch.randn(5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: Int8Product.apply(x, codes, scale, bias), (x,))
    weight = codes.double() * scale[:, None] / 127
    torch.testing.assert_close(Int8Product.apply(x, codes, scale, bias), torch.nn.functional.linear(x, weight, bias))


def test_without_bitsandbytes_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize, "available", lambda: False)
    with pytest.raises(ModelError, match=r"pip install 'tuneloop\[bitsandbytes\]'"):
        quantize.config_for("nf4", torch.float32)


def test_a_new_model_is_not_quantised(architecture: Callable[..., Any], tokenizer_folder: Path) -> None:
    config = ModelConfig.model_validate({"architecture": architecture("llama"), "tokenizer": str(tokenizer_folder)})
    with pytest.raises(ModelError, match="no trained weights to hold in int8"):
        load_model(find_base(config), torch.float32, quantization="int8")


def test_memory_counts_fewer_bits(tiny_model: Callable[..., Any], model_folder: Make) -> None:
    pytest.importorskip("bitsandbytes")
    config = tiny_model("llama", hidden_size=256, intermediate_size=512, head_dim=64).config
    options: dict[str, Any] = {"tokens_per_step": 64, "dtype": torch.bfloat16, "trainable": 100, "beside": True}
    full, four, eight = (fit.estimate(config, quantization=q, **options).weights for q in (None, "nf4", "int8"))
    _, _, linear = fit.count_parameters(config)
    assert full - eight == linear
    assert full - four == pytest.approx(linear * (2 - 4.127 / 8), rel=1e-4)
    model = load_model(find_base(ModelConfig(base=str(model_folder()))), torch.bfloat16, quantization="int8")
    really = sum(p.numel() * p.element_size() for p in model.parameters())
    said = fit.estimate(model.config, quantization="int8", **{**options, "trainable": 0}).weights
    assert really == pytest.approx(said, rel=0.02)
