"""The chunked divergence is the one of full float64 softmaxes, value and gradients, for every kind of head."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import gradcheck
from toy import heights_of_products

from tuneloop.forward import loss
from tuneloop.forward.divergence import Direction, Side, chunked_divergence

wide = torch.float64
COUNT, VOCAB = 300, 33  # more than two chunks
DIRECTIONS = get_args(Direction)


def soft_capped(logits: Tensor) -> Tensor:
    return 2.0 * torch.tanh(logits / 2.0)


def sides(bias: bool = False, finish: Any = None) -> tuple[Side, Side, Tensor]:
    """Teacher and student of unequal hidden sizes, and weights."""
    torch.manual_seed(0)
    heads = [nn.Linear(size, VOCAB, bias=bias, dtype=wide) for size in (6, 8)]
    teacher, student = (torch.randn(COUNT, size, dtype=wide, requires_grad=True) for size in (6, 8))
    weights = torch.rand(COUNT, dtype=wide)
    weights[::7] = 0
    return Side(teacher, heads[0], finish), Side(student, heads[1], finish), weights


def probabilities(side: Side, temperature: float) -> Tensor:
    logits = side.head(side.hidden_ND)
    return ((logits if side.finish is None else side.finish(logits)) / temperature).softmax(-1)


def reference(teacher: Side, student: Side, temperature: float, direction: str) -> Tensor:
    p, q = probabilities(teacher, temperature).detach(), probabilities(student, temperature)
    if direction == "reverse":
        p, q = q, p
    if direction == "js":
        m = (p + q) / 2
        return ((p * (p / m).log()).sum(-1) + (q * (q / m).log()).sum(-1)) / 2
    return (p * (p / q).log()).sum(-1)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize(("bias", "finish", "temperature"), [(False, None, 1.0), (True, soft_capped, 2.5)])
def test_value_and_gradients(direction: Any, trained: bool, bias: bool, finish: Any, temperature: float) -> None:
    teacher, student, weights = sides(bias, finish)
    student.head.requires_grad_(trained)
    total, each = chunked_divergence(teacher, student, weights, temperature=temperature, direction=direction)
    expected = reference(teacher, student, temperature, direction)
    torch.testing.assert_close(each, expected.detach(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(total, (expected * weights).sum(), rtol=1e-12, atol=1e-12)
    leaves = [student.hidden_ND, *(p for p in student.head.parameters() if p.requires_grad)]
    ours, theirs = (torch.autograd.grad(t / 7, leaves) for t in (total, (expected * weights).sum()))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13)
    assert not each.requires_grad


def test_torch_agrees() -> None:
    teacher, student, weights = sides()
    _, each = chunked_divergence(teacher, student, weights)
    p, q = (F.log_softmax(side.head(side.hidden_ND), -1) for side in (teacher, student))
    torch.testing.assert_close(each, F.kl_div(q, p, log_target=True, reduction="none").sum(-1))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_gradcheck(direction: Any) -> None:
    torch.manual_seed(1)
    teacher = Side(torch.randn(4, 2, dtype=wide), nn.Linear(2, 5, dtype=wide))
    head = nn.Linear(3, 5, dtype=wide)

    weights = torch.rand(4, dtype=wide)

    def total(hidden: Tensor, *_: Tensor) -> Tensor:
        return chunked_divergence(teacher, Side(hidden, head), weights, temperature=1.5, direction=direction)[0]

    hidden = torch.randn(4, 3, dtype=wide, requires_grad=True)
    assert gradcheck(total, (hidden, head.weight, head.bias))  # which moves the head's own values


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_model_does_not_diverge_from_itself(direction: Any) -> None:
    _, student, weights = sides()
    total, each = chunked_divergence(student, student, weights, direction=direction)
    assert float(each.abs().max()) < 1e-14
    (slope,) = torch.autograd.grad(total, student.hidden_ND)
    assert float(slope.abs().max()) < 1e-14


def test_the_teacher_learns_nothing() -> None:
    teacher, student, weights = sides()
    total, _ = chunked_divergence(teacher, student, weights)
    total.backward()
    assert teacher.hidden_ND.grad is None and teacher.head.weight.grad is None
    assert student.hidden_ND.grad is not None and student.head.weight.grad is not None


def test_padding_of_the_vocabulary_is_left_out() -> None:
    teacher, student, weights = sides()
    padded = nn.Linear(6, VOCAB + 9, bias=False, dtype=wide)
    padded.weight.data[:VOCAB] = teacher.head.weight.data  # type: ignore[operator]
    one, _ = chunked_divergence(teacher, student, weights)
    other, _ = chunked_divergence(Side(teacher.hidden_ND, padded), student, weights)
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_sums_in_float32(dtype: torch.dtype) -> None:
    teacher, student, weights = sides()
    half = [Side(side.hidden_ND.to(dtype), side.head.to(dtype)) for side in (teacher, student)]
    total, each = chunked_divergence(half[0], half[1], weights.float())
    assert each.dtype is torch.float32
    exact = [Side(side.hidden_ND.double(), side.head.double()) for side in half]
    expected, _ = chunked_divergence(exact[0], exact[1], weights)
    assert float((total - expected).detach().abs() / expected.detach()) < 1e-2


def test_no_position() -> None:
    teacher, student, weights = sides()
    none = [Side(side.hidden_ND[:0], side.head) for side in (teacher, student)]
    total, each = chunked_divergence(none[0], none[1], weights[:0])
    assert total.item() == 0 and each.shape == (0,)
    total.backward()


def test_the_full_logits_never_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = heights_of_products(monkeypatch)
    teacher, student, weights = sides()
    student.head.requires_grad_(False)
    total, _ = chunked_divergence(teacher, student, weights)
    total.backward()
    assert sum(seen) == 2 * COUNT and max(seen) <= loss.CPU_ROWS
