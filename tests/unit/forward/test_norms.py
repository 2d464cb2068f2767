"""Our RMSNorm is transformers' RMSNorm, on the modules that compute just that and on no others."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from tuneloop.forward.hasten import hasten_norms


def made(dtype: torch.dtype = torch.float32) -> Any:
    norm = Qwen3RMSNorm(12, eps=1e-5)
    norm.weight.data = torch.linspace(0.5, 2, 12)
    return norm.to(dtype)


def computed(norm: Any, x: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    out = norm(x)
    slope = torch.linspace(-1, 1, out.numel()).view_as(out).to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, [x, norm.weight], slope)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 6e-3), (torch.float64, 0)])
def test_as_transformers_computes_it(dtype: torch.dtype, tolerance: float) -> None:
    norm, draw = made(dtype), torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 7, 12, generator=draw).to(dtype).transpose(1, 2)
    theirs = computed(norm, x)
    assert hasten_norms(norm) == 1
    for ours, other in zip(computed(norm, x), theirs, strict=True):
        assert ours.dtype is other.dtype and ours.shape == other.shape
        assert float((ours - other).norm() / other.norm()) <= tolerance


def test_taken_off_again_and_copied() -> None:
    norm, x = made(), torch.randn(5, 12)
    before = norm.state_dict().keys()
    hasten_norms(norm)
    other = copy.deepcopy(norm)
    other.weight.data.zero_()
    assert not other(x).any() and norm(x).all()
    assert norm.state_dict().keys() == before
    del norm.forward
    assert "forward" not in vars(norm)


@pytest.mark.parametrize(("name", "count"), [("llama", 5), ("qwen3", 9), ("gemma2", 0), ("gpt2", 0)])
def test_which_modules(name: str, count: int, tiny_model: Callable[..., Any]) -> None:
    assert hasten_norms(tiny_model(name)) == count
