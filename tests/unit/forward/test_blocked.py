"""Attention in blocks of queries is attention: same output and gradients as torch's, for every kind of mask."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tuneloop.forward.blocked import blocked_attention

SIZES = st.tuples(
    st.integers(1, 3), st.integers(1, 2), st.integers(1, 3), st.integers(1, 110), st.integers(0, 30), st.integers(1, 9)
)


def made(rows: int, kept: int, groups: int, queries: int, before: int, size: int, dtype: torch.dtype) -> list[Tensor]:
    """Queries, keys, values (of another size than keys) as the model hands them on: heads behind positions."""
    draw = torch.Generator().manual_seed(0)
    shapes = ((queries, kept * groups, size), (queries + before, kept, size), (queries + before, kept, size + 1))
    return [torch.randn(rows, *shape, generator=draw).to(dtype).transpose(1, 2).requires_grad_() for shape in shapes]


def by_torch(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril(k.shape[2] - q.shape[2])
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.7, enable_gqa=True)


def all_of(out: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    slope = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out).to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, inputs, slope)]


@settings(max_examples=40, deadline=None)
@given(SIZES, st.sampled_from(["causal", "window", "each row"]))
def test_as_torch_computes_it(sizes: tuple[int, ...], kind: str) -> None:
    inputs = made(*sizes, torch.float64)  # type: ignore[call-arg]
    q, k, _ = inputs
    causal = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril(sizes[4])
    mask = None
    if kind == "window":
        mask = causal & ~causal.tril(-4)
    elif kind == "each row":
        mask = causal & (torch.rand(sizes[0], 1, *causal.shape, generator=torch.Generator().manual_seed(1)) < 0.5)
        mask[..., 0] = True
    ours, theirs = all_of(blocked_attention(*inputs, mask, 0.7), inputs), all_of(by_torch(*inputs, mask), inputs)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 5e-3)])
def test_precision(dtype: torch.dtype, tolerance: float) -> None:
    """In bfloat16 the error is that of rounding output and shares once: torch's own kernel reaches 5e-3 too."""
    inputs = made(3, 2, 3, 100, 0, 64, dtype)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    theirs = all_of(by_torch(*exact, None), exact)
    for mine, other in zip(all_of(blocked_attention(*inputs, None, 0.7), inputs), theirs, strict=True):
        assert mine.dtype is dtype
        assert float((mine - other).norm() / other.norm()) < tolerance
    assert torch.backends.mkldnn.matmul.fp32_precision == "none"


def test_a_query_that_sees_nothing_harms_no_other() -> None:
    inputs = made(2, 1, 2, 60, 0, 4, torch.float32)
    mask = torch.ones(60, 60, dtype=torch.bool).tril().repeat(2, 1, 1, 1)
    mask[1, :, 40:] = False
    out = blocked_attention(*inputs, mask, 0.7)
    slope = torch.ones_like(out)
    slope[1, :, 40:] = 0
    assert all(bool(grad.isfinite().all()) for grad in torch.autograd.grad(out, inputs, slope))
