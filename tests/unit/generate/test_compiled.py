"""What is compiled computes what PyTorch does, for all heads, rows, places and windows; and why nothing may be."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tuneloop.generate import compiled, slots
from tuneloop.generate.compiled import Heads, Kernels
from tuneloop.generate.slots import Slots

SHAPES = [Heads(9, 3, 64, torch.bfloat16), Heads(4, 4, 16, torch.float32), Heads(6, 1, 20, torch.float32)]
needs_gcc = pytest.mark.skipif(isinstance(compiled.kernels(SHAPES[0]), str), reason="nothing can be compiled here")


def built(heads: Heads) -> Kernels:
    found = compiled.kernels(heads)
    assert isinstance(found, Kernels)
    return found


def some(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def read_by_torch(
    heads: Heads, queries: Tensor, slots_SCW: Tensor, row: list[int], at: list[int], window: int | None, scaling: float
) -> Tensor:
    """Of slots in which everything is written."""
    held = slots_SCW.double().view(*slots_SCW.shape[:2], 2, heads.asked, heads.size)
    out = []
    for query, slot, place in zip(queries.double(), row, at, strict=True):
        begin = 0 if window is None else max(0, place + 1 - window)
        k, v = held[slot, begin : place + 1].permute(1, 2, 0, 3)
        read = F.scaled_dot_product_attention(query[None, :, None], k[None], v[None], scale=scaling, enable_gqa=True)
        out.append(read.flatten())
    return torch.stack(out)[None]


@needs_gcc
@settings(max_examples=60, deadline=None)
@given(
    heads=st.sampled_from(SHAPES),
    at=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 199)), min_size=1, max_size=20, unique=True),
    window=st.none() | st.integers(1, 220),
    gap=st.integers(0, 3),
    seed=st.integers(0, 1000),
)
def test_attention_reads_what_was_written(
    heads: Heads, at: list[tuple[int, int]], window: int | None, gap: int, seed: int
) -> None:
    """Several tokens of one row too: each sees those before it, in whatever order they come."""
    tokens, wide = len(at), heads.asking + 2 * heads.asked
    whole = some((tokens, wide * heads.size + gap), heads.dtype, seed)
    queries = whole[:, : heads.asking * heads.size].unflatten(1, (heads.asking, heads.size))
    kv = whole[:, heads.asking * heads.size : wide * heads.size]
    before = some((4, 200, 2 * heads.asked * heads.size), heads.dtype, seed + 1)
    row, place = [one[0] for one in at], [one[1] for one in at]
    after = before.clone()
    places = torch.tensor(row), torch.tensor(place)
    out = built(heads).attend(queries, kv, None, after, places, window, 0.3)
    expected = before.clone()
    expected[row, place] = kv
    assert torch.equal(after, expected)
    own = read_by_torch(heads, queries, expected, row, place, window, 0.3)
    torch.testing.assert_close(out.double(), own, rtol=1e-2, atol=1e-2 if heads.dtype is torch.bfloat16 else 1e-5)


@needs_gcc
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("tokens", [1, 5, 300])
def test_norms_and_gates_have_pytorchs_numbers(dtype: torch.dtype, tokens: int) -> None:
    kernels = built(Heads(9, 3, 64, dtype))
    x, more, weight = some((1, tokens, 96), dtype, 1), some((1, tokens, 96), dtype, 2), some((96,), dtype, 3)
    changed, summed = x.clone(), x + more
    out = kernels.norm(changed, more, weight, 1e-5)
    factor = torch.rsqrt(summed.float().square().mean(-1, keepdim=True) + 1e-5)
    assert torch.equal(changed, summed)
    close = {"rtol": 1e-2 if dtype is torch.bfloat16 else 1e-5, "atol": 1e-6}
    torch.testing.assert_close(out, (summed.float() * factor).to(dtype) * weight, **close)
    torch.testing.assert_close(kernels.norm(x, None, weight, 1e-5), kernels.norm(x * 1, None, weight, 1e-5))
    gates = torch.cat([some((1, tokens, 50), dtype, 4) * 100, some((1, tokens, 50), dtype, 5)], -1)
    own = F.silu(gates[..., :50]) * gates[..., 50:]
    torch.testing.assert_close(kernels.gated(gates[..., :50], gates[..., 50:]), own, **close)


@needs_gcc
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_what_is_no_number_stays_none(dtype: torch.dtype) -> None:
    """A broken model must not look like one that works."""
    heads = Heads(9, 3, 64, dtype)
    kernels = built(heads)
    x = torch.ones(1, 2, 8, dtype=dtype)
    x[0, 1, 3] = float("nan")
    normed = kernels.norm(x.clone(), None, torch.ones(8, dtype=dtype), 1e-5)
    assert normed[0, 0].isfinite().all() and normed[0, 1].isnan().all()
    assert kernels.gated(x, torch.ones_like(x)).isnan().sum() == 1
    queries, kv = some((2, 9, 64), dtype, 1), some((2, 384), dtype, 2)
    kv[1, 0] = float("nan")
    held, at = torch.zeros(2, 4, 384, dtype=dtype), (torch.arange(2), torch.tensor([2, 3]))
    out = kernels.attend(queries, kv, None, held, at, None, 0.1).view(2, 3, -1)
    assert out[0].isfinite().all() and out[1, 0].isnan().all() and out[1, 1:].isfinite().all()


@needs_gcc
@pytest.mark.parametrize("name", ["llama", "gpt2", "phi3", "gemma3_text", "qwen3"])
def test_steps_of_other_architectures_are_compiled_too(
    tiny_model: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(name).eval()

    def stepped() -> Tensor:
        with torch.inference_mode(), slots.attending(model):
            rows = Slots(model, None, 0, 3)
            rows.join([[5, 6, 7, 8, 9], [10, 11, 12], [5, 6, 20, 21, 22, 23, 24, 25]])
            return torch.stack([rows.step([3 + turn, 4, 5]) for turn in range(4)])

    stepped()  # compiles and compares
    calls, real = [], Kernels.attend
    monkeypatch.setattr(Kernels, "attend", lambda self, *given: (calls.append(1), real(self, *given))[1])
    ours = stepped()
    assert len(calls) == 4 * model.config.num_hidden_layers
    monkeypatch.setattr(compiled, "kernels_for", lambda *_: None)
    torch.testing.assert_close(ours, stepped(), rtol=1e-4, atol=1e-4)
    assert len(calls) == 4 * model.config.num_hidden_layers


# -- building ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNELOOP_CACHE", str(tmp_path))
    return tmp_path


def why(heads: Heads) -> str:
    """Anew, as a new process would."""
    found = compiled.kernels.__wrapped__(heads)
    assert isinstance(found, str)
    return found


def a_compiler(folder: Path, script: str) -> str:
    """Says that it is gcc."""
    path = folder / "gcc"
    path.write_text(f'#!/bin/sh\nif [ "$1" = --version ]; then echo "Free Software Foundation"; exit; fi\n{script}\n')
    path.chmod(0o755)
    return str(path)


@needs_gcc
def test_it_is_compiled_once_for_a_machine(empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = tmp_path / "count"
    script = f'echo 1 >> {counted}\nexec {shutil.which("gcc")} "$@"'
    monkeypatch.setenv("CC", a_compiler(tmp_path, script))
    for _ in range(2):
        assert isinstance(compiled.kernels.__wrapped__(SHAPES[0]), Kernels)
    assert len(counted.read_text().split()) == 1
    assert len(list(empty_cache.glob("compiled/*/steps.so"))) == 1


@needs_gcc
def test_nothing_is_compiled_without_a_compiler(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(empty_cache))
    assert "no gcc" in why(SHAPES[0])


@needs_gcc
def test_a_compiler_that_fails_is_quoted(empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", a_compiler(tmp_path, "echo the disk is made of cheese >&2; exit 1"))
    assert "made of cheese" in why(SHAPES[0])
    assert not list(empty_cache.glob("compiled/*/steps.so"))
    monkeypatch.setenv("CC", a_compiler(tmp_path, 'while [ "$1" != -o ]; do shift; done; echo nonsense > "$2"'))
    assert "cannot be loaded" in why(SHAPES[1])


@needs_gcc
@pytest.mark.parametrize("mistake", ["/ total[g]", "const float faded = exponential(largest[g] - most);"])
def test_wrong_numbers_are_found_out(
    empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mistake: str
) -> None:
    source = compiled.SOURCE.read_text()
    assert mistake in source
    wrong = tmp_path / "steps.c"
    wrong.write_text(source.replace(mistake, "const float faded = 1.5f;" if "faded" in mistake else ""))
    monkeypatch.setattr(compiled, "SOURCE", wrong)
    for heads in SHAPES:
        assert "differs from PyTorch" in why(heads)


@needs_gcc
def test_a_file_that_others_can_change_is_not_loaded(empty_cache: Path) -> None:
    assert isinstance(compiled.kernels.__wrapped__(SHAPES[0]), Kernels)
    (path,) = empty_cache.glob("compiled/*/steps.so")
    path.chmod(path.stat().st_mode | stat.S_IWOTH)
    assert "written by others" in why(SHAPES[0])
    path.chmod(0o644)
    path.parent.chmod(0o777)
    assert "written by others" in why(SHAPES[0])
    if os.geteuid() == 0:
        path.parent.chmod(0o755)
        os.chown(path, 12345, 12345)
        assert "written by others" in why(SHAPES[0])


@pytest.mark.parametrize("heads", [Heads(4, 4, 16, torch.float16), Heads(5, 2, 16, torch.float32)])
def test_what_the_source_cannot_do_is_not_tried(heads: Heads) -> None:
    assert "nothing is compiled" in str(compiled.kernels(heads))
    assert compiled.kernels_for(torch.zeros(1, dtype=heads.dtype), heads.asking, heads.asked, heads.size) is None
