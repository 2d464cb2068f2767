"""Our node for a plain LoRA layer computes what peft's layer does, and leaves to peft what is not plain."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear
from torch import Tensor, nn

from tuneloop.models.adapted import put_right
from tuneloop.models.lora import PlainLora, _Adapted


def adapted(**config: Any) -> tuple[Any, Any]:
    """(a model of one layer by us, its adapted layer), with an update that is not zero."""
    torch.manual_seed(0)
    model = put_right(
        get_peft_model(nn.Sequential(nn.Linear(12, 20)), LoraConfig(r=3, lora_alpha=7, target_modules=["0"], **config)),  # type: ignore[arg-type]
        torch.float32,
    )
    layer = model.base_model.model[0]
    nn.init.normal_(layer.lora_B["default"].weight)
    return model, layer


def computed(layer: Any, x: Tensor) -> list[Tensor]:
    """Output and gradients of input and factors."""
    x = x.clone().requires_grad_()
    weights = [layer.lora_A["default"].weight, layer.lora_B["default"].weight]
    out = layer(x)
    return [out.detach(), *torch.autograd.grad(out.square().sum(), [x, *weights])]


def by_peft(layer: Any, x: Tensor) -> list[Tensor]:
    layer.__class__ = Linear
    try:
        return computed(layer, x)
    finally:
        layer.__class__ = PlainLora


@pytest.mark.parametrize("shape", [(9, 12), (2, 5, 12)])
def test_as_peft_computes_it(shape: tuple[int, ...]) -> None:
    _, layer = adapted()
    x = torch.randn(shape)
    assert type(layer) is PlainLora
    for ours, theirs in zip(computed(layer, x), by_peft(layer, x), strict=True):
        assert ours.shape == theirs.shape
        assert float((ours - theirs).norm() / theirs.norm()) < 1e-6


@pytest.mark.parametrize("bias", [True, False])
def test_gradients(bias: bool) -> None:
    torch.manual_seed(0)
    x, a, b = (torch.randn(size, dtype=torch.float64, requires_grad=True) for size in ((4, 5), (2, 5), (3, 2)))
    weight = torch.randn(3, 5, dtype=torch.float64)
    constant = torch.randn(3, dtype=torch.float64) if bias else None
    assert torch.autograd.gradcheck(lambda x, a, b: _Adapted.apply(x, weight, constant, a, b, 1.5), (x, a, b))


@pytest.mark.parametrize("config", [{"lora_dropout": 0.5}, {"lora_bias": True}, {"use_dora": True}, {"bias": "all"}])
def test_what_is_not_plain_is_left_to_peft(config: dict[str, Any]) -> None:
    model, layer = adapted(**config)
    model.eval()
    x = torch.randn(9, 12)
    for ours, theirs in zip(computed(layer, x), by_peft(layer, x), strict=True):
        assert torch.equal(ours, theirs)


def test_merged_and_disabled() -> None:
    model, layer = adapted()
    x = torch.randn(9, 12)
    with_update, (base, update) = layer(x), (layer.base_layer(x), layer.get_delta_weight("default"))
    with model.disable_adapter():
        assert torch.equal(layer(x), base)
    layer.merge()
    torch.testing.assert_close(layer(x), with_update)
    layer.unmerge()
    torch.testing.assert_close(layer(x), base + x @ update.T)
