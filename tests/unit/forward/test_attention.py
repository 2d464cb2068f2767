"""Attention over packed rows equals attention row by row; the layout computes every token once."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from tuneloop.forward import layout as layouts
from tuneloop.forward.attention import Unsupported, packed_attention
from tuneloop.forward.layout import Layout
from tuneloop.forward.tree import Tree

LENGTHS = [7, 1, 12, 3, 12, 30, 2]
wide = torch.float64


@st.composite
def trees(draw: st.DrawFn, longest: int = 120) -> Tree:
    """Rows that grow out of earlier ones at any depth, also copies, and rows that another begins with."""
    rows: list[np.ndarray] = []
    for number in range(draw(st.integers(1, 12))):
        own = np.full(draw(st.integers(1, longest)), number + 2)
        before = rows[draw(st.integers(0, len(rows) - 1))] if rows else own
        kept = draw(st.integers(0, len(before)))
        rows.append(np.concatenate([before[:kept], own[: draw(st.integers(0 if kept else 1, len(own)))]]))
    return Tree.of(rows)


@given(st.lists(st.integers(1, 700), min_size=1, max_size=40).map(Tree.flat) | trees())
def test_blocks_compute_every_token_once(tree: Tree) -> None:
    layout = Layout.of(tree)
    computed = torch.cat([block.queries.tokens for block in layout.blocks])
    assert computed.sort().values.tolist() == list(range(tree.tokens))
    assert torch.equal(computed[layout.order_T], torch.arange(tree.tokens))
    paths = {tuple(path.tolist()) for path in tree.paths}
    for block in layout.blocks:
        for places in (block.queries, block.keys):
            assert torch.equal(places.gather[places.places], places.tokens)
            assert not places.once or len(places.tokens.unique()) == len(places.tokens)
        real = torch.zeros(len(block.keys.gather), dtype=torch.bool)
        real[block.keys.places] = True
        rows = zip(block.keys.gather.view(block.rows, -1), real.view(block.rows, -1), strict=True)
        assert all(tuple(row[mask].tolist()) in paths for row, mask in rows), "a row's keys are that row, whole"
        queries, keys = (places.gather.view(block.rows, -1) for places in (block.queries, block.keys))
        assert torch.equal(queries, keys[:, -block.width :]), "so that one causal mask serves all rows"


@given(trees())
def test_rows_are_found_again(tree: Tree) -> None:
    layout = Layout.of(tree)
    assert [path.tolist() for path in layout.paths_N.split(layout.lengths)] == [path.tolist() for path in tree.paths]
    owners = [{row for row, path in enumerate(tree.paths) if token in path} for token in range(tree.tokens)]
    assert layout.copies_T().tolist() == list(map(len, owners))
    assert layout.rows_T().tolist() == list(map(min, owners))
    assert layout.shared == any(len(owner) > 1 for owner in owners)


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
    found, _ = packed_attention(torch.nn.Module(), q, k, v, None, layout=Layout.of(Tree.flat(LENGTHS)), **options)
    scaling = options.get("scaling", size**-0.5)
    parts = zip(*(x[0].split(LENGTHS, 1) for x in (q, k, v)), strict=True)
    rows = [reference(*one, scaling, options.get("sliding_window"), options.get("softcap")) for one in parts]
    expected = torch.cat(rows, 1).transpose(0, 1)[None]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    slope = torch.randn_like(expected)
    ours, theirs = (torch.autograd.grad(out, (q, k, v), slope) for out in (found, expected))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(tree=trees(longest=40), options=st.sampled_from(CASES))
def test_shared_is_per_row(tree: Tree, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    q = torch.randn(1, 4, tree.tokens, 6, dtype=wide, requires_grad=True)
    k, v = (torch.randn(1, 2, tree.tokens, 6, dtype=wide, requires_grad=True) for _ in range(2))
    found, _ = packed_attention(torch.nn.Module(), q, k, v, None, layout=Layout.of(tree), **options)
    scaling = options.get("scaling", 6**-0.5)
    paths = [torch.from_numpy(path) for path in tree.paths]
    limits = options.get("sliding_window"), options.get("softcap")
    rows = [reference(q[0, :, path], k[0, :, path], v[0, :, path], scaling, *limits) for path in paths]
    expected = torch.zeros_like(found[0])
    for path, row in zip(paths, rows, strict=True):
        expected = expected.index_copy(0, path, row.transpose(0, 1))
    torch.testing.assert_close(found[0], expected, rtol=1e-12, atol=1e-12)
    slope = torch.randn_like(expected)
    ours, theirs = (torch.autograd.grad(out, (q, k, v), slope) for out in (found[0], expected))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_own_autograd_functions_in_float64() -> None:
    layout = Layout.of(Tree.flat([3, 5, 1, 4]))
    tokens = torch.randn(13, 2, 3, dtype=wide, requires_grad=True)
    for block in layout.blocks:
        block_of_row = torch.randn(block.rows * block.width, 2, 3, dtype=wide, requires_grad=True)
        assert gradcheck(layouts.FromBlock.apply, (block_of_row, block.queries))

        def real_of_padded(x: Tensor, block: Any = block) -> Tensor:
            # the copies that stand in the padding get no gradient, as nothing real ever attends to them
            return layouts.ToBlock.apply(x, block.keys)[block.keys.places]  # type: ignore[index]

        assert gradcheck(real_of_padded, (tokens,))


@settings(max_examples=20)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_there_and_back_again(lengths: list[int]) -> None:
    layout = Layout.of(Tree.flat(lengths))
    tokens = torch.randn(sum(lengths), 1, 2, dtype=wide, requires_grad=True)
    parts: list[Any] = [
        layouts.FromBlock.apply(layouts.ToBlock.apply(tokens, block.queries), block.queries) for block in layout.blocks
    ]
    back = torch.cat(parts).index_select(0, layout.order_T)
    assert torch.equal(back, tokens)
    slope = torch.randn_like(back)
    assert torch.equal(torch.autograd.grad(back, tokens, slope)[0], slope)


def test_what_it_cannot_compute_is_said() -> None:
    x = torch.randn(1, 2, 4, 8)
    layout = Layout.of(Tree.flat([4]))
    for options in ({"layout": None}, {"layout": layout, "position_bias": torch.zeros(2)}):
        with pytest.raises(Unsupported):
            packed_attention(torch.nn.Module(), x, x, x, None, **options)
    with pytest.raises(Unsupported):
        packed_attention(torch.nn.Module(), x, x, x, torch.ones(1), layout=layout)
