"""The loop stops when it should: early stopping, non-finite losses; it says what it measured in metrics.jsonl."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from toy import counting_rows, job_of, weights_of

from tuneloop.core.errors import TrainingError
from tuneloop.forward.objective import mean_nll
from tuneloop.render.rendered import Rendered
from tuneloop.track import metrics
from tuneloop.tune import loop
from tuneloop.tune.config import TuneConfig
from tuneloop.tune.loop import train
from tuneloop.tune.validation import Measured, Validate

Make = Callable[..., Any]


def measured(values: list[float], name: str = "loss", lower: bool = True) -> Validate:
    """A validation that gives these values, one after another."""
    waiting = iter(values)
    return lambda: Measured({"loss": (9.0, True), name: (next(waiting), lower)})


def stopping(values: list[float], model: Any, folder: Path, *, lower: bool = True, **rule: Any) -> loop.Job:
    name = "loss" if lower else "f1"
    return job_of(
        model, counting_rows(8), folder, validate=measured(values, name, lower), steps=len(values), batch_size=4,
        early_stopping={"metric": name, **rule}, validation={"every": 1, "generate": 1},
    )  # fmt: skip


def test_stops_when_the_loss_no_longer_falls_and_keeps_the_best(tiny_model: Make, tmp_path: Path) -> None:
    job = stopping([3.0, 2.0, 2.5, 2.5, 1.0, 1.0], tiny_model(), tmp_path, patience=2)
    seen: list[dict[str, Any]] = []
    given = job.validate
    assert given is not None
    object.__setattr__(job, "validate", lambda: (seen.append(weights_of(job)), given())[1])
    progress = train(job)
    assert (progress.step, progress.best, progress.best_step, progress.stopped) == (4, 2.0, 2, True)
    assert all(torch.equal(value, seen[1][name]) for name, value in weights_of(job).items())
    assert not torch.equal(seen[1]["lm_head.weight"], seen[3]["lm_head.weight"])
    assert [row["val_loss"] for row in metrics.read(tmp_path / "metrics.jsonl")] == [3.0, 2.0, 2.5, 2.5]
    again = train(job)  # a finished run that is resumed for its export does not train further
    assert again == progress


def test_stops_on_a_metric_that_should_rise(tiny_model: Make, tmp_path: Path) -> None:
    progress = train(stopping([0.1, 0.5, 0.4, 0.5, 0.9], tiny_model(), tmp_path, lower=False, patience=2))
    assert (progress.step, progress.best, progress.best_step) == (4, 0.5, 2)


def test_small_improvements_do_not_count(tiny_model: Make, tmp_path: Path) -> None:
    progress = train(stopping([3.0, 2.99, 2.98, 1.0], tiny_model(), tmp_path, patience=2, min_delta=0.1))
    assert (progress.step, progress.best_step) == (3, 1)


def test_a_value_that_is_not_finite_is_never_the_best(tiny_model: Make, tmp_path: Path) -> None:
    progress = train(stopping([float("nan"), 2.0, float("nan"), 1.0], tiny_model(), tmp_path, patience=3))
    assert (progress.best, progress.best_step, progress.stopped) == (1.0, 4, False)


def test_without_early_stopping_the_last_weights_stay(tiny_model: Make, tmp_path: Path) -> None:
    job = job_of(tiny_model(), counting_rows(8), tmp_path, validate=measured([1.0, 2.0, 3.0]), steps=3,
                 validation={"every": 1})  # fmt: skip
    progress = train(job)
    assert progress.step == 3 and not (job.checkpoints / "best").exists()


def test_a_metric_that_is_not_measured() -> None:
    asked = {"early_stopping": {"metric": "f1"}}
    assert TuneConfig.model_validate(asked).asked_rows == 50, "a metric alone is enough"
    with pytest.raises(
        ValidationError, match=r"'f1' is measured by asking validation rows, and validation\.generate: 0"
    ):
        TuneConfig.model_validate({**asked, "validation": {"generate": 0}})


def test_an_unknown_metric_is_named(tiny_model: Make, tmp_path: Path) -> None:
    job = job_of(
        tiny_model(), counting_rows(4), tmp_path, validate=measured([1.0]), steps=1,
        early_stopping={"metric": "g1"}, validation={"every": 1, "generate": 1},
    )  # fmt: skip
    with pytest.raises(TrainingError, match="'g1' is not measured; measured are: loss"):
        train(job)


@pytest.mark.parametrize("infinite", ["loss", "gradient"])
def test_non_finite_stops_with_row_ids_before_the_weights_are_touched(
    infinite: str, tiny_model: Make, tmp_path: Path
) -> None:
    rows = counting_rows(8)
    weights = rows[5].weights.copy()
    weights[3] = np.inf if infinite == "loss" else 1e38
    rows[5] = Rendered(rows[5].ids, weights, "the-bad-row")
    job = job_of(tiny_model(), rows, tmp_path, batch_size=2, shuffle=False, steps=4, save_every=1)
    seen: list[dict[str, torch.Tensor]] = []
    step = job.optimizer.step
    object.__setattr__(job.optimizer, "step", lambda *a: (step(*a), seen.append(weights_of(job))))
    if infinite == "gradient":
        job.objective.model.lm_head.weight.register_hook(lambda grad: grad * 1e38)  # type: ignore[union-attr]
        with pytest.raises(TrainingError, match=r"step 1: loss .* gradient norm inf"):
            train(job)
        assert seen == []
        return
    with pytest.raises(TrainingError, match=r"step 3: .*before the weights were touched.*row4, the-bad-row\..*fp32"):
        train(job)
    assert len(seen) == 2
    assert all(torch.equal(value, seen[-1][name]) for name, value in weights_of(job).items())
    assert [row["step"] for row in metrics.read(tmp_path / "metrics.jsonl")] == [1, 2]


def test_the_lines_of_metrics(tiny_model: Make, tmp_path: Path) -> None:
    rows = counting_rows(10)
    job = job_of(tiny_model(), rows, tmp_path, epochs=2, batch_size=4, schedule={"linear": {"warmup": 2}})
    first = mean_nll(job.objective, [rows[i] for i in _first_step(job)], pad_id=0, budget=100)
    progress = train(job)
    lines = metrics.read(tmp_path / "metrics.jsonl")
    assert progress.step == len(lines) == 6
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["epoch"] for line in lines] == pytest.approx([1 / 3, 2 / 3, 1, 4 / 3, 5 / 3, 2], abs=1e-4)
    assert [line["tokens"] for line in lines] == [40, 40, 20] * 2
    assert [line["supervised_tokens"] for line in lines] == [36, 36, 18] * 2
    assert lines[0]["loss"] == pytest.approx(first, rel=1e-6)
    assert [line["learning_rate"] for line in lines] == pytest.approx(
        [0.01 * f for f in (1 / 3, 2 / 3, 1, 0.75, 0.5, 0.25)]
    )
    assert lines[-1]["loss"] < lines[0]["loss"]


def _first_step(job: loop.Job) -> list[int]:
    return np.random.default_rng([job.seed, 0]).permutation(len(job.rows)).tolist()[: job.config.batch_size]


def test_ctrl_c_finishes_the_step_and_saves(tiny_model: Make, tmp_path: Path) -> None:
    job = job_of(tiny_model(), counting_rows(8), tmp_path, steps=6, save_every=100)
    step = job.optimizer.step
    before = signal.getsignal(signal.SIGINT)

    def interrupted(*arguments: Any) -> None:
        step(*arguments)
        if len(metrics.read(tmp_path / "metrics.jsonl")) == 2:
            signal.raise_signal(signal.SIGINT)

    object.__setattr__(job.optimizer, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(job)
    assert [path.name for path in job.checkpoints.iterdir()] == ["step-0000003"]
    assert [row["step"] for row in metrics.read(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    assert signal.getsignal(signal.SIGINT) is before
