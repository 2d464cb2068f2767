"""What the curves say together: the rule on simulated curves, its false alarms, and the gap of the losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from tuneloop.tune import watch


def curve(loss: Any, f1: Any = None, name: str = "f1") -> list[dict[str, Any]]:
    """A run's lines: one validation each tenth step."""
    rows: list[dict[str, Any]] = []
    for number, value in enumerate(loss):
        rows += [{"step": 10 * number + k, "loss": 1.0, "supervised_tokens": 5} for k in range(1, 10)]
        row = {"step": 10 * (number + 1), "loss": 1.0, "supervised_tokens": 5, "val_loss": float(value)}
        rows.append(row | ({f"val_{name}": float(f1[number])} if f1 is not None else {}))
    return rows


def said(rows: list[dict[str, Any]], lower: Mapping[str, bool | None] | None = None) -> list[watch.Finding]:
    """All warnings of a run, as it would have said them."""
    lower = {"loss": True, "f1": False} if lower is None else lower
    found: list[watch.Finding] = []
    for end in range(1, len(rows) + 1):
        if "val_loss" in rows[end - 1]:
            new = watch.findings(rows[:end], lower)
            found += new
            if new:
                rows[end - 1]["findings"] = [{"kind": one.kind, "metric": one.metric} for one in new]
    return found


FALLS, RISES = np.linspace(1.0, 0.6, 12), np.linspace(0.6, 1.0, 12)


@pytest.mark.parametrize(
    ("loss", "metric", "kinds"),
    [
        (FALLS, FALLS, ["loss_falls_metric_falls"]),
        (RISES, RISES, ["loss_rises_metric_rises"]),
        (FALLS, RISES, []),
        (RISES, FALLS, ["overfits"]),
        (RISES, None, ["overfits"]),
        (FALLS, None, []),
        (FALLS, np.full(12, 0.5), []),
        (np.r_[FALLS, RISES], None, ["overfits"]),
        (FALLS[:7], FALLS[:7], []),
    ],
)
def test_which_curves_are_warned_of(loss: Any, metric: Any, kinds: list[str]) -> None:
    found = said(curve(loss, metric))
    assert [one.kind for one in found] == kinds, "each kind once"
    if len(loss) == 12 and kinds:
        assert found[0].step == 80, "as soon as eight validations say so"


def test_what_is_better_the_metric_says() -> None:
    lower = {"loss": True, "wer": True}
    assert said(curve(FALLS, FALLS, "wer"), lower) == []
    (found,) = said(curve(FALLS, RISES, "wer"), lower)
    assert found.kind == "loss_falls_metric_falls" and "Trust wer" in found.text and "step 10" in found.text
    assert said(curve(FALLS, FALLS, "length"), {"loss": True, "length": None}) == [], "shorter is not worse"


def test_a_change_that_is_too_small_is_none() -> None:
    assert said(curve(FALLS, 0.9 - np.arange(12) * 1e-4)) == []


def test_the_turning_point_is_named() -> None:
    found = said(curve(np.r_[np.linspace(1, 0.5, 6), np.linspace(0.55, 0.9, 9)]))
    assert len(found) == 1 and "overfits since step 60" in found[0].text
    (beside,) = said(curve(RISES, np.full(12, 0.5)))
    assert "f1 0.5 → 0.5" in beside.text


def noise(runs: int, length: int, correlation: float) -> Any:
    draw = np.random.default_rng(0).standard_normal((runs, length))
    out = draw.copy()
    for t in range(1, length):
        out[:, t] = correlation * out[:, t - 1] + np.sqrt(1 - correlation**2) * draw[:, t]
    return out


@pytest.mark.parametrize(("correlation", "most"), [(0.0, 0.02), (0.3, 0.045), (0.5, 0.085)])
def test_noise_alone_is_rarely_taken_for_a_trend(correlation: float, most: float) -> None:
    """Of 1,000 runs of 20 validations, those with an alarm: the loss truly falls, the metric only wavers."""
    wavering = 10 + noise(1_000, 20, correlation)
    alarms = sum(any(watch.trend(run[:end].tolist()) < 0 for end in range(8, 21)) for run in wavering)
    assert alarms / 1_000 < most


def test_a_true_fall_is_found_through_noise() -> None:
    falling = 20 + noise(200, 12, 0.3) - np.arange(12)
    assert np.mean([any(watch.trend(run[:end].tolist()) < 0 for end in range(8, 13)) for run in falling]) > 0.85


def test_the_training_loss_is_that_since_the_validation_before() -> None:
    rows: list[dict[str, Any]] = [
        {"loss": 9.0, "supervised_tokens": 1}, {"loss": 9.0, "supervised_tokens": 1, "val_loss": 3.0},
        {"loss": 2.0, "supervised_tokens": 30}, {"loss": 1.0, "supervised_tokens": 10, "val_loss": 2.5},
    ]  # fmt: skip
    assert watch.train_loss(rows) == pytest.approx(1.75)
    assert watch.train_loss(rows[:1]) == 9.0
