"""Attention over packed rows equals attention row by row; the layout covers every token once."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from tuneloop.forward import attention
from tuneloop.forward.attention import Layout, Unsupported, packed_attention

LENGTHS = [7, 1, 12, 3, 12, 30, 2]
wide = torch.float64


@given(st.lists(st.integers(1, 700), min_size=1, max_size=40))
def test_blocks_cover_every_token_once(lengths: list[int]) -> None:
    layout = Layout.of(lengths)
    total = sum(lengths)
    covered = torch.cat([block.tokens_T for block in layout.blocks])
    assert covered.sort().values.tolist() == list(range(total))
    assert torch.equal(covered[layout.order_T], torch.arange(total))
    row_of = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    for block in layout.blocks:
        assert block.gather_RL.shape == (block.rows * block.width,)
        assert torch.equal(block.gather_RL[block.scatter_T], block.tokens_T)
        owners = row_of[block.gather_RL].view(block.rows, block.width)
        assert (owners == owners[:, :1]).all(), "a block's row holds tokens of one row only"
        assert block.rows == 1 or block.rows * block.width <= attention.WASTE * len(block.tokens_T)


def reference(q: Tensor, k: Tensor, v: Tensor, scaling: float, window: int | None, softcap: float | None) -> Tensor:
    """One row, textbook: q [H, L, D], k and v [K, L, D]."""
    groups = q.shape[0] // k.shape[0]
    k, v = k.repeat_interleave(groups, 0), v.repeat_interleave(groups, 0)
    scores = q @ k.transpose(1, 2) * scaling
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    at = torch.arange(q.shape[1])
    seen = at[:, None] >= at
    if window is not None:
        seen &= at[:, None] - at < window
    return scores.masked_fill(~seen, -math.inf).softmax(-1) @ v


CASES: list[dict[str, Any]] = [
    {},
    {"scaling": 0.3},
    {"sliding_window": 5},
    {"sliding_window": 1},
    {"sliding_window": 1000},
    {"softcap": 2.0},
    {"softcap": 2.0, "sliding_window": 4, "scaling": 0.2},
]


@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (4, 1)])
@pytest.mark.parametrize("options", CASES, ids=str)
def test_packed_is_per_row(heads: tuple[int, int], options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    total, size = sum(LENGTHS), 6
    q, k = (torch.randn(1, h, total, size, dtype=wide, requires_grad=True) for h in heads)
    v = torch.randn(1, heads[1], total, 5, dtype=wide, requires_grad=True)  # DeepSeek's values have another size
    found, _ = packed_attention(torch.nn.Module(), q, k, v, None, layout=Layout.of(LENGTHS), **options)
    scaling = options.get("scaling", size**-0.5)
    parts = zip(*(x[0].split(LENGTHS, 1) for x in (q, k, v)), strict=True)
    rows = [reference(*one, scaling, options.get("sliding_window"), options.get("softcap")) for one in parts]
    expected = torch.cat(rows, 1).transpose(0, 1)[None]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    slope = torch.randn_like(expected)
    ours, theirs = (torch.autograd.grad(out, (q, k, v), slope) for out in (found, expected))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


def test_half_precision_is_computed_in_float32_where_rows_are_short() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 19, 8, dtype=torch.bfloat16) for _ in range(3))
    found, _ = packed_attention(torch.nn.Module(), q, k, v, None, layout=Layout.of([8, 11]))
    exact, _ = packed_attention(torch.nn.Module(), q.double(), k.double(), v.double(), None, layout=Layout.of([8, 11]))
    assert found.dtype is torch.bfloat16
    torch.testing.assert_close(found.double(), exact, rtol=2**-8, atol=1e-6)


def test_own_autograd_functions_in_float64() -> None:
    layout = Layout.of([3, 5, 1, 4])
    tokens = torch.randn(13, 2, 3, dtype=wide, requires_grad=True)
    for block in layout.blocks:
        block_of_row = torch.randn(block.rows * block.width, 2, 3, dtype=wide, requires_grad=True)
        assert gradcheck(attention._FromBlock.apply, (block_of_row, block))

        def real_of_padded(x: Tensor, block: Any = block) -> Tensor:
            # the copies that stand in the padding get no gradient, as nothing real ever attends to them
            return attention._ToBlock.apply(x, block)[block.scatter_T]  # type: ignore[index]

        assert gradcheck(real_of_padded, (tokens,))


@settings(max_examples=20)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_there_and_back_again(lengths: list[int]) -> None:
    layout = Layout.of(lengths)
    tokens = torch.randn(sum(lengths), 1, 2, dtype=wide, requires_grad=True)
    parts: list[Any] = [
        attention._FromBlock.apply(attention._ToBlock.apply(tokens, block), block) for block in layout.blocks
    ]
    back = torch.cat(parts).index_select(0, layout.order_T)
    assert torch.equal(back, tokens)
    slope = torch.randn_like(back)
    assert torch.equal(torch.autograd.grad(back, tokens, slope)[0], slope)


def test_what_it_cannot_compute_is_said() -> None:
    x = torch.randn(1, 2, 4, 8)
    layout = Layout.of([4])
    for options in ({"layout": None}, {"layout": layout, "position_bias": torch.zeros(2)}):
        with pytest.raises(Unsupported):
            packed_attention(torch.nn.Module(), x, x, x, None, **options)
    with pytest.raises(Unsupported):
        packed_attention(torch.nn.Module(), x, x, x, torch.ones(1), layout=layout)
