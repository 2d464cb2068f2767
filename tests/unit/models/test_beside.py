"""Layers of one input as one product: still layers for all who look at them, in full precision and in 8 bits."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from tuneloop.models.beside import beside, lay_beside
from tuneloop.models.fewer_bits import Int8Rows
from tuneloop.models.packed import PackedLinear, pack


def layers_of(kind: str, bias: bool) -> list[Any]:
    """Three layers with 32 inputs."""
    torch.manual_seed(0)
    layers = [torch.nn.Linear(32, outputs, bias=bias) for outputs in (24, 8, 16)]
    if kind == "int8":
        return [Int8Rows(layer.weight.detach(), layer.bias) for layer in layers]
    pack(torch.nn.Sequential(*layers))
    return layers


@pytest.mark.parametrize("kind", ["packed", "int8"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 6, 100])
def test_layers_of_one_product_are_still_layers(kind: str, bias: bool, rows: int) -> None:
    layers = layers_of(kind, bias)
    x = torch.randn(1, rows, 32).to(torch.bfloat16 if kind == "int8" else torch.float32)
    with torch.inference_mode():
        before = [layer(x) for layer in layers]
    shapes, dense = [layer.weight.shape for layer in layers], [layer.dense() for layer in layers]
    biases = [None if layer.bias is None else layer.bias.clone() for layer in layers]
    assert beside(layers) is None
    lay_beside(layers)
    whole = beside(layers)
    assert whole is not None and beside(layers[:2]) is None and beside(layers[::-1]) is None
    lay_beside(layers)
    assert beside(layers) is whole
    with torch.inference_mode():
        torch.testing.assert_close(whole(x), torch.cat(before, -1), rtol=1e-5, atol=1e-5)
        for place, layer in enumerate(layers):
            torch.testing.assert_close(layer(x), before[place], rtol=1e-5, atol=1e-5)
            assert layer.weight.shape == shapes[place] and not list(layer.buffers())
            copied = copy.deepcopy(layer)
            assert type(copied) is torch.nn.Linear and torch.equal(copied.weight, dense[place])
            kept = biases[place]
            assert copied.bias is None if kept is None else torch.equal(copied.bias, kept)


def test_layers_that_are_not_alike_stay_apart() -> None:
    one, other, biased = torch.nn.Linear(8, 4, bias=False), torch.nn.Linear(8, 4, bias=False), torch.nn.Linear(8, 4)
    pack(torch.nn.Sequential(one, biased))
    for layers in ([one, other], [one, biased], [one, torch.nn.Identity()], [other, other]):
        lay_beside(layers)
        assert beside(layers) is None and type(one) is PackedLinear
