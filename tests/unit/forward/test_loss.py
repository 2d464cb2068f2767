"""The chunked loss is the plain cross-entropy, value and gradients, for every kind of head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import gradcheck
from toy import heights_of_products

from tuneloop.forward import loss
from tuneloop.forward.loss import Shaping, chunked_nll, token_nll

wide = torch.float64
COUNT, SIZE, VOCAB = 300, 8, 33  # more than two chunks


def inputs(bias: bool = False) -> tuple[Tensor, nn.Linear, Tensor, Tensor]:
    torch.manual_seed(0)
    head = nn.Linear(SIZE, VOCAB, bias=bias, dtype=wide)
    hidden = torch.randn(COUNT, SIZE, dtype=wide, requires_grad=True)
    weights = torch.rand(COUNT, dtype=wide) * 2
    weights[::7] = 0
    return hidden, head, torch.randint(0, VOCAB, (COUNT,)), weights


def plain(hidden: Tensor, head: nn.Module, targets: Tensor, weights: Tensor, finish: Any = None) -> Tensor:
    logits = head(hidden) if finish is None else finish(head(hidden))
    return (F.cross_entropy(logits, targets, reduction="none") * weights).sum()


def assert_same(ours: Tensor, theirs: Tensor, leaves: list[Tensor]) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    for a, b in zip(torch.autograd.grad(ours / 7, leaves), torch.autograd.grad(theirs / 7, leaves), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("trained", [False, True])
def test_value_and_gradients(bias: bool, trained: bool) -> None:
    hidden, head, targets, weights = inputs(bias)
    head.requires_grad_(trained)
    total, nll = chunked_nll(hidden, head, targets, weights)
    leaves = [hidden, *(p for p in head.parameters() if p.requires_grad)]
    assert_same(total, plain(hidden, head, targets, weights), leaves)
    expected = F.cross_entropy(head(hidden), targets, reduction="none")
    torch.testing.assert_close(nll, expected.detach(), rtol=1e-12, atol=1e-12)
    assert not nll.requires_grad


def soft_capped(logits: Tensor) -> Tensor:
    return 2.0 * torch.tanh(logits / 2.0)


@pytest.mark.parametrize("finish", [soft_capped, lambda logits: logits * 0.3])
def test_what_a_model_does_after_its_head(finish: Callable[[Tensor], Tensor]) -> None:
    hidden, head, targets, weights = inputs()
    total, _ = chunked_nll(hidden, head, targets, weights, finish)
    assert_same(total, plain(hidden, head, targets, weights, finish), [hidden, head.weight])


def test_lora_on_the_head() -> None:
    from peft import LoraConfig, get_peft_model

    hidden, head, targets, weights = inputs()
    model: Any = get_peft_model(
        nn.Sequential(head),  # type: ignore[arg-type]
        LoraConfig(target_modules=["0"], r=2),
        autocast_adapter_dtype=False,
    )
    adapted: Any = model.base_model.model[0]
    for factor in adapted.lora_B.values():
        nn.init.normal_(factor.weight)
    total, _ = chunked_nll(hidden, adapted, targets, weights)
    leaves = [hidden, adapted.lora_A["default"].weight, adapted.lora_B["default"].weight]
    assert_same(total, plain(hidden, adapted, targets, weights), leaves)


def test_gradcheck() -> None:
    torch.manual_seed(1)
    hidden, weight, bias = (torch.randn(*s, dtype=wide, requires_grad=True) for s in ((5, 3), (7, 3), (7,)))
    targets, weights = torch.tensor([0, 6, 2, 2, 5]), torch.tensor([1.0, 0.0, 2.0, 0.5, 1.0], dtype=wide)

    def total(*inputs: Tensor) -> Any:
        return loss._ChunkedNLL.apply(*inputs, targets, weights)[0]  # type: ignore[index]

    assert gradcheck(total, (hidden, weight, bias))


def shaped(hidden: Tensor, head: nn.Module, targets: Tensor, weights: Tensor, shaping: Shaping, finish: Any) -> Tensor:
    """The reference: torch's own label smoothing, and DFT by its definition."""
    logits = head(hidden) if finish is None else finish(head(hidden))
    losses = F.cross_entropy(logits, targets, reduction="none", label_smoothing=shaping.smoothing)
    if shaping.dft:
        losses = losses * logits.softmax(-1).gather(-1, targets[:, None])[:, 0].detach()
    return (losses * weights).sum()


SHAPINGS = [Shaping(smoothing=0.1), Shaping(smoothing=1.0), Shaping(dft=True)]


@pytest.mark.parametrize("shaping", SHAPINGS)
@pytest.mark.parametrize("finish", [None, soft_capped])
@pytest.mark.parametrize("trained", [False, True])
def test_shaped_losses(shaping: Shaping, finish: Any, trained: bool) -> None:
    hidden, head, targets, weights = inputs(bias=True)
    head.requires_grad_(trained)
    total, nll = chunked_nll(hidden, head, targets, weights, finish, shaping)
    leaves = [hidden, *(p for p in head.parameters() if p.requires_grad)]
    assert_same(total, shaped(hidden, head, targets, weights, shaping, finish), leaves)
    torch.testing.assert_close(nll, chunked_nll(hidden, head, targets, weights, finish)[1])


@pytest.mark.parametrize("finish", [None, soft_capped])
def test_each_position_has_its_own_gradient(finish: Any) -> None:
    hidden, head, targets, weights = inputs()
    nll = token_nll(hidden, head, targets, finish)
    assert_same((nll.exp() * weights).sum(), plain_each(hidden, head, targets, weights, finish), [hidden, head.weight])


def plain_each(hidden: Tensor, head: nn.Module, targets: Tensor, weights: Tensor, finish: Any) -> Tensor:
    logits = head(hidden) if finish is None else finish(head(hidden))
    return (F.cross_entropy(logits, targets, reduction="none").exp() * weights).sum()


def test_gradcheck_of_label_smoothing() -> None:
    torch.manual_seed(1)
    hidden, weight, bias = (torch.randn(*s, dtype=wide, requires_grad=True) for s in ((5, 3), (7, 3), (7,)))
    targets, weights = torch.tensor([0, 6, 2, 2, 5]), torch.tensor([1.0, 0.0, 2.0, 0.5, 1.0], dtype=wide)

    def total(*inputs: Tensor) -> Any:
        return loss._ChunkedNLL.apply(*inputs, targets, weights, Shaping(smoothing=0.3))[0]  # type: ignore[index]

    assert gradcheck(total, (hidden, weight, bias))


def test_dft_at_sure_and_hopeless_targets() -> None:
    """p = 1 and p = 0 in floating point: no NaN, no gradient."""
    head = nn.Linear(1, 2, bias=False)
    head.weight.data = torch.tensor([[1.0], [0.0]])
    hidden = torch.tensor([[1e4], [1e4]], requires_grad=True)
    for finish in (None, lambda logits: logits * 1.0):
        total, _ = chunked_nll(hidden, head, torch.tensor([0, 1]), torch.ones(2), finish, Shaping(dft=True))
        assert total.item() == 0
        (slope,) = torch.autograd.grad(total, hidden)
        assert torch.equal(slope, torch.zeros(2, 1))


@pytest.mark.parametrize("finish", [None, soft_capped])
def test_no_scored_position(finish: Any) -> None:
    _, head, targets, weights = inputs()
    hidden = torch.randn(0, SIZE, dtype=wide, requires_grad=True)
    total, nll = chunked_nll(hidden, head, targets[:0], weights[:0], finish)
    assert total.item() == 0 and nll.shape == (0,)
    total.backward()
    assert hidden.grad is not None and hidden.grad.shape == (0, SIZE)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_sums_in_float32(dtype: torch.dtype) -> None:
    hidden, head, targets, weights = inputs()
    half = nn.Linear(SIZE, VOCAB, bias=False, dtype=dtype)
    half.weight.data.copy_(head.weight)
    total, nll = chunked_nll(hidden.to(dtype), half, targets, weights)
    assert nll.dtype is torch.float32
    exact = plain(hidden.to(dtype).double(), half.double(), targets, weights)
    assert float((total - exact).detach().abs() / exact.detach()) < 3e-4


def test_the_full_logits_never_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = heights_of_products(monkeypatch)
    monkeypatch.setattr(loss, "SLAB_ELEMENTS", loss.CPU_ROWS * VOCAB)
    hidden, head, targets, weights = inputs()
    chunked_nll(hidden, head.requires_grad_(False), targets, weights)
    assert sum(seen) == COUNT and max(seen) <= loss.CPU_ROWS
