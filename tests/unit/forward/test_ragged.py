"""Who sees whom, as FlexAttention and kernels for many sequences are told; and which of the ways a model gets."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention import flex_attention, varlen

from tests.unit.forward.test_attention import trees
from tuneloop.forward import attention, ragged, ways
from tuneloop.forward.layout import Layout
from tuneloop.forward.objective import prepare
from tuneloop.forward.ragged import Asked
from tuneloop.forward.tree import Tree

wide = torch.float64
many_rows = st.lists(st.integers(1, 300), min_size=1, max_size=8).map(Tree.flat) | trees(longest=300)
windows = st.none() | st.integers(1, 400)


def sees(tree: Tree, window: int | None) -> np.ndarray:
    """[T, T], from the definition: the tokens before it in any row that it is part of."""
    found = np.zeros((tree.tokens, tree.tokens), np.bool_)
    for path in tree.paths:
        own = np.tril(np.ones((len(path), len(path)), np.bool_))
        found[np.ix_(path, path)] |= own if window is None else np.triu(own, 1 - window)
    return found


@settings(max_examples=60, deadline=None)
@given(tree=many_rows, window=windows)
def test_the_mask_is_who_sees_whom(tree: Tree, window: int | None) -> None:
    mask, expected = ragged.seen(Layout.of(tree), window), sees(tree, window)
    at = torch.arange(tree.tokens)
    none = torch.tensor(0)
    assert np.array_equal(mask.mask_mod(none, none, at[:, None], at).numpy(), expected)
    some, every = ragged.tiles(Layout.of(tree), window)
    for query, key in np.ndindex(some.shape):
        tile = expected[query * 128 :, key * 128 :][:128, :128]
        assert some[query, key] or every[query, key] or not tile.any(), "what is left out counts nowhere"
        assert not (some[query, key] and every[query, key])
        assert tile.all() or not every[query, key], "what is not masked counts everywhere"
    assert np.array_equal(mask.to_dense()[0, 0].numpy() > 0, some | every)


def test_only_the_tiles_of_a_row_are_computed() -> None:
    some, every = ragged.tiles(Layout.of(Tree.flat([256, 256, 512])), None)
    assert (some | every).sum() == 3 + 3 + 10
    _, every = ragged.tiles(Layout.of(Tree.flat([512])), 300)
    assert every.sum() == 3, "the tiles beside the diagonal"


OPTIONS: list[dict[str, Any]] = [
    {},
    {"scaling": 0.3, "window": 20},
    {"softcap": 2.0},
    {"sinks_H": torch.linspace(-1, 2, 4, dtype=wide)},
    {"softcap": 1.5, "window": 7, "sinks_H": torch.linspace(-1, 2, 4, dtype=wide)},
]


def inputs(tree: Tree, size: int = 16) -> tuple[Tensor, ...]:
    chance = torch.Generator().manual_seed(0)
    return tuple(
        torch.randn(1, heads, tree.tokens, size, dtype=wide, generator=chance).requires_grad_() for heads in (4, 2, 2)
    )


def same_as_in_blocks(found: Tensor | None, tree: Tree, given: tuple[Tensor, ...], asked: Asked) -> None:
    assert found is not None
    expected = attention._in_blocks(*given, Layout.of(tree), asked)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    slope = torch.randn_like(expected)
    ours, theirs = (torch.autograd.grad(out, given, slope) for out in (found, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


@pytest.mark.filterwarnings("ignore:.*flex_attention called without torch.compile")
@settings(max_examples=15, deadline=None)
@given(tree=many_rows, options=st.sampled_from(OPTIONS))
def test_flex(tree: Tree, options: dict[str, Any]) -> None:
    asked, given = Asked(**options), inputs(tree)
    with pytest.MonkeyPatch.context() as patch:  # torch refuses gradients on CPU, which its plain form does compute
        patch.setattr(flex_attention, "_validate_device", lambda *_: None)
        same_as_in_blocks(ragged.flex(*given, Layout.of(tree), asked), tree, given, asked)
    assert ragged.flex(*given, Layout.of(tree), Asked(dropout=0.1)) is None


def as_documented(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float | None,
    window_size: tuple[int, int],
    enable_gqa: bool,
) -> Tensor:
    """varlen_attn sequence by sequence; FlashAttention lays causal masks on the last query and the last key."""
    assert cu_seq_q.dtype is cu_seq_k.dtype is torch.int32 and window_size[1] == 0
    assert enable_gqa == (query.shape[1] != key.shape[1])
    sizes = [ends.diff() for ends in (cu_seq_q, cu_seq_k)]
    assert [int(size.max()) for size in sizes] == [max_q, max_k] and all(int(size.min()) > 0 for size in sizes)
    parts = []
    rows = [query.split(sizes[0].tolist()), *(x.split(sizes[1].tolist()) for x in (key, value))]
    for q, k, v in zip(*rows, strict=True):
        at = torch.arange(len(k))
        back = at[len(k) - len(q) :, None] - at
        seen = (back >= 0) & (back <= window_size[0] if window_size[0] >= 0 else True)
        found = torch.nn.functional.scaled_dot_product_attention(
            *(x.transpose(0, 1) for x in (q, k, v)), attn_mask=seen, scale=scale, enable_gqa=enable_gqa
        )
        parts.append(found.transpose(0, 1))
    return torch.cat(parts)


@settings(max_examples=30, deadline=None)
@given(tree=many_rows, options=st.sampled_from(OPTIONS[:2]))
def test_many_sequences(tree: Tree, options: dict[str, Any]) -> None:
    asked, given = Asked(**options), inputs(tree)
    with pytest.MonkeyPatch.context() as patch:  # the real one has kernels for GPUs only
        patch.setattr(varlen, "varlen_attn", as_documented)
        same_as_in_blocks(ragged.varlen(*given, Layout.of(tree), asked), tree, given, asked)
    for other in (*OPTIONS[2:], {"dropout": 0.1}):
        assert ragged.varlen(*given, Layout.of(tree), Asked(**other)) is None


class Made:
    def __init__(self, length: int) -> None:
        self.ids = np.random.default_rng(length).integers(5, 60, length)
        self.weights = np.ones(length, np.float32)


def slow(*given: Any) -> Tensor | None:
    time.sleep(0.02)
    return attention.compiled(*given)


def sees_all(q: Tensor, k: Tensor, v: Tensor, layout: Layout, asked: Asked) -> Tensor:
    """One long row: what becomes of rows where borders are overlooked."""
    return attention._in_blocks(q, k, v, Layout.of(Tree.flat([q.shape[2]])), asked)


def broken(*given: Any) -> Tensor:
    raise RuntimeError("no kernel image\nand more")


def broken_for_few(q: Tensor, *given: Any) -> Tensor | None:
    return attention.compiled(q, *given) if q.shape[2] > 50 else broken()


def test_the_fastest_that_is_right_is_taken(tiny_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    names = [attention.NAME, *(f"{attention.NAME}_{way}" for way in ("mixing", "broken", "few", "good", "varlen"))]
    tried = dict(zip(names, (slow, sees_all, broken, broken_for_few, attention.compiled, ragged.varlen), strict=True))
    monkeypatch.setattr(attention, "WAYS", tried)
    monkeypatch.setattr(
        ways, "TITLES", dict(zip(names, ("blocks", "mixing", "broken", "few", "good", "varlen"), strict=True))
    )
    rows: Any = [Made(length) for length in (30, 12, 61)]
    objective, _ = prepare(tiny_model("llama"), rows, 0)
    objective.train()
    core = ways.core_of(objective.model)
    before = {name: p.detach().clone() for name, p in core.named_parameters()}
    said = ways.choose(objective, [objective.batch(part, 0) for part in (rows, rows[:1])])
    assert core.config._attn_implementation == f"{attention.NAME}_good" and objective.training
    assert said.startswith("attention by good") and "103 tokens" in said
    assert "mixing differs by" in said and all(
        f"{name} failed (RuntimeError: no kernel image)" in said for name in ("broken", "few")
    )
    assert "varlen failed" in said, "torch has no such kernel for a CPU"
    assert all(p.grad is None and torch.equal(p, before[name]) for name, p in core.named_parameters())
    with attention.standard(core):
        assert core.config._attn_implementation == "sdpa"
    assert core.config._attn_implementation == f"{attention.NAME}_good", "generation in between gives it back"


def test_what_is_drawn_at_random_is_the_same_for_all(
    tiny_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are tried as in training: with dropout, and activations computed again where they will be."""
    names = [attention.NAME, f"{attention.NAME}_good"]
    monkeypatch.setattr(attention, "WAYS", dict(zip(names, (slow, attention.compiled), strict=True)))
    monkeypatch.setattr(ways, "TITLES", dict(zip(names, ("blocks", "good"), strict=True)))
    rows: Any = [Made(length) for length in (30, 12)]
    objective, _ = prepare(tiny_model("gpt2", resid_pdrop=0.5, attn_pdrop=0.0), rows, 0)
    objective.eval()
    assert ways.choose(objective, [objective.batch(rows, 0)]).startswith("attention by good")
    assert not objective.training


def test_on_a_cpu_nothing_is_tried(tiny_model: Callable[..., Any]) -> None:
    rows: Any = [Made(20)]
    objective, _ = prepare(tiny_model("llama"), rows, 0)
    assert ways.fastest(objective, rows, 0, 100) == ""
