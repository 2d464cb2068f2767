"""What is compiled for training computes what PyTorch does, there and back; wrong numbers are found out before use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tuneloop.forward import fused, kernels
from tuneloop.forward.kernels import Kernels
from tuneloop.forward.layout import Layout, Rows
from tuneloop.forward.objective import prepare
from tuneloop.forward.tree import Tree

DTYPES = [torch.float32, torch.bfloat16]
needs_gcc = pytest.mark.skipif(isinstance(kernels.kernels(DTYPES[0]), str), reason="nothing can be compiled here")
CLOSE = {torch.float32: 2e-6, torch.bfloat16: 1e-2}
"""Norm of the difference from float64 ÷ norm."""


def built(dtype: torch.dtype) -> Kernels:
    found = kernels.kernels(dtype)
    assert isinstance(found, Kernels)
    return found


@pytest.fixture
def either() -> Callable[[torch.dtype], Any]:
    """What stands beside attention, by dtype; by_triton.py has these tests with another."""
    if isinstance(kernels.kernels(DTYPES[0]), str):
        pytest.skip("nothing can be compiled here")
    return built


def some(*shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def apart(ours: Tensor, exact: Tensor) -> float:
    return float((ours.detach().double() - exact.detach().double()).norm() / exact.detach().double().norm().clamp(1e-3))


def by_torch(q: Tensor, k: Tensor, v: Tensor, tree: Tree, window: int | None, scaling: float) -> Tensor:
    """Row by row, each with all of its tokens."""
    out = q.new_zeros(q.shape[2], q.shape[1], q.shape[3])
    for path, known in zip(tree.paths, tree.known, strict=True):
        seen = torch.ones(len(path), len(path), dtype=torch.bool).tril()
        if window is not None:
            seen = seen.triu(1 - window)
        parts = (x[:, :, torch.from_numpy(path)] for x in (q, k, v))
        read = F.scaled_dot_product_attention(*parts, attn_mask=seen, scale=scaling, enable_gqa=True)
        out = out.index_copy(0, torch.from_numpy(path[known:]), read[0].transpose(0, 1)[known:])
    return out[None]


@needs_gcc
@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 140), min_size=1, max_size=6),
    shared=st.sampled_from([0, 20, 70]),
    heads=st.sampled_from([(1, 1), (6, 2), (9, 3), (16, 1), (4, 4)]),
    size=st.sampled_from([2, 16, 20, 33, 64, 80]),
    window=st.none() | st.integers(1, 150),
    dtype=st.sampled_from(DTYPES),
)
def test_attention(
    lengths: list[int], shared: int, heads: tuple[int, int], size: int, window: int | None, dtype: torch.dtype
) -> None:
    """Rows alone and rows that begin alike; many heads for a key; sizes that fill no vector."""
    start = np.arange(shared)
    ids = [np.concatenate([start, 1000 * (number + 1) + np.arange(length)]) for number, length in enumerate(lengths)]
    tree = Tree.of(ids)
    layout = Layout.of(tree)
    wide = some(1, tree.tokens, heads[0] + 2 * heads[1], size + 1, dtype=dtype)[..., :size]
    inputs = [x.transpose(1, 2).requires_grad_() for x in wide.split([heads[0], heads[1], heads[1]], 2)]
    slope = some(1, tree.tokens, heads[0], size, dtype=dtype, seed=1)
    out = fused.attention(built(dtype), *inputs, layout.for_kernels, window, 0.3)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    own = by_torch(*exact, tree, window, 0.3)
    assert apart(out, own) < CLOSE[dtype]
    ours, theirs = torch.autograd.grad(out, inputs, slope), torch.autograd.grad(own, exact, slope.double())
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.dtype is dtype and mine.shape == other.shape
        # the slopes of one key alone are 0, and what is left is rounding
        assert apart(mine, other) < CLOSE[dtype] or float((mine - other).abs().max()) < 10 * CLOSE[dtype]


@needs_gcc
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_of_many_blocks_in_any_number_of_threads(dtype: torch.dtype) -> None:
    rows = Rows.of(torch.arange(1500), [1200, 300], [0, 0], 1500)
    q, k, v = (some(1, heads, 1500, 16, dtype=dtype, seed=heads) for heads in (4, 2, 2))
    slope = some(1500, 4, 16, dtype=dtype)
    before, seen = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            out, total = built(dtype).attend(q, k, v, rows, None, 0.2)
            seen.append([out, total, *built(dtype).attend_back(slope, q, k, v, total, rows, None, 0.2)])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for more in seen[1:] for one, other in zip(seen[0], more, strict=True))
    own = by_torch(q.double(), k.double(), v.double(), Tree.flat([1200, 300]), None, 0.2)
    assert apart(seen[0][0], own[0]) < CLOSE[dtype]


def compared(ours: Sequence[Tensor], out: Tensor, inputs: Sequence[Tensor], slope: Tensor, tolerance: float) -> None:
    exact = [out, *torch.autograd.grad(out, inputs, slope.to(out.dtype))]
    for mine, other in zip(ours, exact, strict=True):
        assert apart(mine, other) < tolerance


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("tokens", "size"), [(1, 1), (3, 50), (200, 384)])
def test_norms_and_gates(either: Any, dtype: torch.dtype, tokens: int, size: int) -> None:
    found = either(dtype)
    x, slope = (some(tokens, size, dtype=dtype, seed=seed) for seed in (0, 1))
    weight = some(size, dtype=dtype)
    out, factor = found.norm(x, weight, 1e-5)
    of_x, of_weight = found.norm_back(slope, x, weight, factor, True)
    assert of_weight is not None and found.norm_back(slope, x, weight, factor, False)[1] is None
    exact, weighed = x.double().requires_grad_(), weight.double().requires_grad_()
    normed = exact * torch.rsqrt(exact.square().mean(-1, keepdim=True) + 1e-5) * weighed
    if size > 1:  # of one number alone only the sign is left, and its gradient is rounding
        compared([out, of_x, of_weight], normed, [exact, weighed], slope, CLOSE[dtype])
    gate = 100 * x
    ours, exact, held = [found.gated(gate, slope), *found.gated_back(x, gate, slope)], gate.double(), slope.double()
    compared(ours, F.silu(exact.requires_grad_()) * held.requires_grad_(), [exact, held], x, CLOSE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [2, 20, 64])
def test_turns(either: Any, dtype: torch.dtype, size: int) -> None:
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    q, k = (some(1, 30, heads, size, dtype=dtype).transpose(1, 2).requires_grad_() for heads in (6, 2))
    angle = some(1, 30, size // 2, dtype=torch.float32).repeat(1, 1, 2)
    turn = angle.cos().to(dtype), angle.sin().to(dtype)
    ours, theirs = fused.turned(either(dtype), q, k, *turn), apply_rotary_pos_emb(q, k, *turn)
    for mine, other, x in zip(ours, theirs, (q, k), strict=True):
        exact = isinstance(either(dtype), Kernels) and dtype is torch.bfloat16  # Triton's interpreter cuts off
        assert torch.equal(mine, other) if exact else apart(mine, other) < CLOSE[dtype]
        slope = some(*x.shape, dtype=dtype, seed=3)
        (one,), (two,) = (torch.autograd.grad(out, x, slope, retain_graph=True) for out in (mine, other))
        assert apart(one, two) < CLOSE[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("smoothing", "dft"), [(0.0, False), (0.2, False), (0.0, True), (0.2, True)])
@pytest.mark.parametrize("size", [333, 20_000])
def test_likelihoods(either: Any, dtype: torch.dtype, smoothing: float, dft: bool, size: int) -> None:
    logits, targets, weights = 8 * some(9, size, dtype=dtype), torch.arange(9) * 37, torch.linspace(0, 2, 9)
    exact = logits.double().requires_grad_()
    log_p = exact.log_softmax(-1)
    nll, mean = -log_p.gather(-1, targets[:, None])[:, 0], -log_p.mean(-1)
    factor = weights * (nll.detach().neg().exp() if dft else 1)
    (slopes,) = torch.autograd.grad((factor * torch.lerp(nll, mean, smoothing)).sum(), exact)
    kept = logits.clone()
    for one, other in zip(either(dtype).likelihood(logits, targets, None, smoothing, dft), (nll, mean), strict=True):
        assert apart(one, other) < 2e-6
    assert torch.equal(logits, kept)
    either(dtype).likelihood(logits, targets, weights, smoothing, dft)
    assert apart(logits, slopes) < CLOSE[dtype]


@needs_gcc
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_no_number_stays_none_where_it_is_seen(dtype: torch.dtype) -> None:
    """A broken model must not look like one that works."""
    found, rows = built(dtype), Rows.of(torch.arange(60), [40, 20], [0, 0], 60)
    q, k, v = (some(1, 2, 60, 16, dtype=dtype, seed=n) for n in range(3))
    k[0, 0, 30, 5] = float("nan")
    out, total = found.attend(q, k, v, rows, None, 0.2)
    assert out[30:40, 0].isnan().all() and out[:30].isfinite().all() and out[40:].isfinite().all()
    assert out[:, 1].isfinite().all() and total[30:40, 0].isnan().all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_no_number_stays_none_beside_attention(either: Any, dtype: torch.dtype) -> None:
    found, x = either(dtype), torch.ones(2, 8, dtype=dtype)
    x[1, 3] = float("nan")
    normed, _ = found.norm(x, torch.ones(8, dtype=dtype), 1e-5)
    assert normed[0].isfinite().all() and normed[1].isnan().all()
    assert found.gated(x, torch.ones_like(x)).isnan().sum() == 1
    nll, _ = found.likelihood(x, torch.zeros(2, dtype=torch.int64), torch.ones(2), 0.0, False)
    assert nll[0].isfinite() and nll[1].isnan() and x[1].isnan().all()


@needs_gcc
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("sum += share[j] * of[j]", "sum -= share[j] * of[j]"),
        ("to_k[i * deep + d] * scaling", "to_k[i * deep + d]"),
        ("for (long first = known[r];", "for (long first = 0 * known[r] + 16;"),
        ("along *= scale * scale", "along *= scale"),
        ("to[d + half] = rounded(b", "to[d + half] = rounded(-b"),
        ("(1.0f + x * (1.0f - open))", "(1.0f + x)"),
        ("- even - (1.0f - smoothing)", "- even - 1.0f"),
    ],
)
def test_wrong_numbers_are_found_out(right: str, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = kernels.SOURCE.read_text()
    assert right in source
    changed = tmp_path / "kernels.c"
    changed.write_text(source.replace(right, wrong))
    monkeypatch.setattr(kernels, "SOURCE", changed)
    monkeypatch.setenv("TUNELOOP_CACHE", str(tmp_path))
    for dtype in DTYPES:
        found = kernels.kernels.__wrapped__(dtype)
        assert isinstance(found, str) and "differs from PyTorch" in found


@needs_gcc
@pytest.mark.parametrize("name", ["llama", "qwen3", "mistral", "gemma2", "gpt2"])
def test_training_without_a_compiler_gives_the_same(
    name: str, tiny_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Made:
        def __init__(self, length: int) -> None:
            self.ids = np.random.default_rng(length).integers(5, 60, length)
            self.weights = np.ones(length, np.float32)

    rows: Any = [Made(length) for length in (30, 12, 61)]

    def gradients() -> tuple[Tensor, str]:
        objective, said = prepare(tiny_model(name), rows, 0)
        objective.eval()
        loss, _ = objective(objective.batch(rows, 0))
        loss.backward()
        return torch.cat([one.grad.flatten() for one in objective.parameters() if one.grad is not None]), said

    ours, said = gradients()
    monkeypatch.setattr(kernels, "kernels", lambda dtype: "there is no gcc")
    own, told = gradients()
    assert apart(ours, own) < 3e-6
    assert "no gcc" not in said and told.endswith("slower than it could be: there is no gcc")
