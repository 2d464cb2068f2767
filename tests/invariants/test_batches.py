"""Equal is equal: packed = padded, one micro-batch = many, the same seed = the same weights (fp32, CPU)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import PACKED, PADDED
from torch import Tensor
from toy import NO_DROPOUT, branching_rows, job_of, lines_of, random_rows, weights_of

from tuneloop.forward.batch import collate
from tuneloop.forward.objective import mean_nll, nll, prepare
from tuneloop.forward.plan import micro_batches
from tuneloop.tune.loop import _step, train

Make = Callable[..., Any]
TOLERANCE = 1e-6
"""Of the loss, relative: fp32 sums in another order. Gradients may have 5 times as much, relative to theirs: norms of
small vectors (Qwen3's queries, DeepSeek's latent ones) amplify rounding. That it is rounding alone shows in float64,
where 1e-12 is kept."""


def loss_and_gradient(model: Any, folder: Path, rows: Any = None, **options: Any) -> tuple[float, Tensor]:
    """Of one whole optimizer step over 10 rows, as the loop computes them."""
    torch.manual_seed(3)
    job = job_of(model, rows or random_rows(10), folder, batch_size=10, **options)
    for name, weight in job.optimizer.model_weights.items():
        if "lora_B" in name:  # zero at first, so that A would have no gradient
            torch.nn.init.normal_(weight, std=0.1)
    seen: list[Tensor] = []
    norm = job.optimizer.gradient_norm

    def keeping() -> Tensor:
        masters = job.optimizer.masters.values()
        seen.append(
            torch.cat([(torch.zeros_like(m) if m.grad is None else m.grad).flatten() for m in masters]).double()
        )
        return norm()

    object.__setattr__(job.optimizer, "gradient_norm", keeping)
    row = _step(job, list(range(10)), [len(row) for row in job.rows], 0)
    return row["loss"], seen[0]


def assert_equal(one: tuple[float, Tensor], other: tuple[float, Tensor], tolerance: float = TOLERANCE) -> None:
    assert one[0] == pytest.approx(other[0], rel=tolerance)
    assert float((one[1] - other[1]).norm() / one[1].norm()) < 5 * tolerance


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("method", ["full", {"lora": {"rank": 4}}], ids=["full", "lora"])
def test_packed_is_padded_is_accumulated(name: str, method: Any, tiny_model: Make, tmp_path: Path) -> None:
    rows = random_rows(10)
    lengths = [len(row) for row in rows]
    assert len(micro_batches(lengths, range(10), 30, packed=True)) > 3

    def computed(packed: bool, budget: int) -> tuple[float, Tensor]:
        model = tiny_model(name, **NO_DROPOUT.get(name, {}), initializer_range=0.1)
        return loss_and_gradient(model, tmp_path, packed=packed, token_budget=budget, method=method)

    whole = computed(True, 10_000)
    assert_equal(whole, computed(False, 10_000))
    assert_equal(whole, computed(True, 30))
    assert_equal(whole, computed(True, 1))
    assert_equal(whole, computed(False, 30))


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("method", ["full", {"lora": {"rank": 4}}], ids=["full", "lora"])
def test_shared_is_computed_in_every_row(name: str, method: Any, tiny_model: Make, tmp_path: Path) -> None:
    """Also where common tokens are scored, in sliding windows, and in the router losses of mixtures of experts."""
    rows = branching_rows(10)
    context = {"sliding_window": 24} if "sliding_window" in tiny_model(name).config.to_dict() else {}

    def computed(share: bool, budget: int) -> tuple[float, Tensor]:
        model = tiny_model(name, **NO_DROPOUT.get(name, {}), **context, initializer_range=0.1)
        return loss_and_gradient(model, tmp_path, rows, share=share, token_budget=budget, method=method)

    plain = computed(False, 10_000)
    assert_equal(plain, computed(True, 10_000), 1e-5)
    assert_equal(plain, computed(True, 120), 1e-5)


@pytest.mark.parametrize("name", PADDED)
def test_padded_is_accumulated(name: str, tiny_model: Make, tmp_path: Path) -> None:
    whole, *others = [
        loss_and_gradient(
            tiny_model(name, initializer_range=0.1), tmp_path, packed=False, token_budget=budget, method="full"
        )
        for budget in (10_000, 30, 1)
    ]
    for other in others:
        assert_equal(whole, other)


@pytest.mark.parametrize("method", ["full", {"lora": {"rank": 4}}], ids=["full", "lora"])
def test_it_is_exact_in_float64(method: Any, tiny_model: Make, tmp_path: Path) -> None:
    """GPT-2, as the norms of the others compute in fp32 whatever the model's dtype is."""
    ways = [(True, 10_000), (False, 10_000), (True, 30), (False, 30), (True, 1)]
    whole, *others = [
        loss_and_gradient(
            tiny_model("gpt2", **NO_DROPOUT["gpt2"]).double(),
            tmp_path,
            packed=packed,
            token_budget=budget,
            method=method,
        )
        for packed, budget in ways
    ]
    for other in others:
        assert_equal(whole, other, 1e-12)
    one, shared = [
        loss_and_gradient(
            tiny_model("gpt2", **NO_DROPOUT["gpt2"]).double(), tmp_path, branching_rows(10), share=share, method=method
        )
        for share in (False, True)
    ]
    assert_equal(one, shared, 1e-12)


def test_the_mean_is_over_tokens_and_not_over_batches(tiny_model: Make) -> None:
    """The well-known trap of accumulation: a mean of means weighs tokens of short rows more."""
    rows = random_rows(6)
    model = tiny_model()
    objective, _ = prepare(model, rows, 0)
    scores = nll(objective, rows, pad_id=0, budget=30)
    mean = mean_nll(objective, rows, pad_id=0, budget=30)
    weighted, _ = objective(collate(rows, packed=True))
    total = sum(float(row.weights[1:].sum()) for row in rows)
    assert mean == pytest.approx(float(weighted.detach()) / total, rel=1e-6)
    means = [sums / weight for sums, weight in scores]
    assert mean != pytest.approx(sum(means) / len(means), rel=1e-3)


@pytest.mark.parametrize("method", ["full", {"lora": {"rank": 4, "dropout": 0.3}}], ids=["full", "lora"])
def test_the_same_seed_twice(method: Any, tiny_model: Make, tmp_path: Path) -> None:
    ends = []
    for number in range(2):
        torch.manual_seed(5)
        job = job_of(tiny_model("gpt2"), random_rows(10), tmp_path / str(number), method=method, epochs=2, batch_size=3)
        train(job)
        ends.append((weights_of(job), lines_of(job.folder)))
    (one, lines), (two, other_lines) = ends
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert lines == other_lines
