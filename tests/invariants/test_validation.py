"""Measuring while training runs: it changes nothing of the training, and the checkpoint it chooses is the best one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from toy import conversations, lines_of, tune_in

from tuneloop.core import jsonl
from tuneloop.core.choice import choose
from tuneloop.core.conversation import Example
from tuneloop.evaluate.config import EvaluateConfig
from tuneloop.evaluate.observing import ask, observe, score
from tuneloop.evaluate.scoring import estimate, how
from tuneloop.flows.contestants import contestant, scorer
from tuneloop.models.adapters import load_with_adapter
from tuneloop.models.config import ModelConfig
from tuneloop.models.find import find_base
from tuneloop.render.load import renderer_of
from tuneloop.tune.config import TuneConfig
from tuneloop.tune.validation import PURPOSE

Folder = Callable[..., Path]
EVALUATE = EvaluateConfig.model_validate({"metrics": ["exact_match", "f1", "perplexity"], "max_new_tokens": 8})
OPTIONS: dict[str, Any] = {
    "method": {"lora": {"rank": 4, "alpha": 8, "dropout": 0.2}}, "steps": 9, "learning_rate": 3e-2,
}  # fmt: skip


def test_what_is_measured_does_not_move_the_training(model_folder: Folder, tmp_path: Path) -> None:
    base, val = {"base": str(model_folder())}, conversations(8, 100)
    options = {**OPTIONS, "validation": {"every": 2, "generate": 4}}
    inner = scorer(EVALUATE, TuneConfig.model_validate(options))

    def drawing(*given: Any) -> Any:
        torch.rand(5)  # as sampled answers do
        return inner(*given)

    plain, _ = tune_in(tmp_path / "a", base, val=val, **{**options, "validation": {"every": 2, "generate": 0}})
    asked, _ = tune_in(tmp_path / "b", base, val=val, scorer=drawing, **options)
    without, others = lines_of(plain.path), lines_of(asked.path)
    assert [{name: row[name] for name in before} for before, row in zip(without, others, strict=True)] == without
    assert {"val_exact_match", "val_f1", "val_perplexity", "loss_gap"} <= others[1].keys()
    files = [load_file(run.out / "adapter" / "adapter_model.safetensors") for run in (plain, asked)]
    assert all(torch.equal(files[0][name], files[1][name]) for name in files[0])
    lines = list(jsonl.read_lines(asked.path / "generations.jsonl"))
    assert len(lines) == 5 * 4 and [line["step"] for line in lines[::4]] == [2, 4, 6, 8, 9]
    assert lines[0].keys() == {"step", "id", "prompt", "reference", "answer", "scores"}
    assert lines[0]["scores"].keys() == {"exact_match", "f1", "perplexity"}


@pytest.mark.parametrize(("name", "lower"), [("perplexity", True), ("f1", False)])
def test_the_best_checkpoint_is_the_best_one(name: str, lower: bool, model_folder: Folder, tmp_path: Path) -> None:
    """Each checkpoint is written by a run of its own that ends there, and scored as `tuneloop evaluate` does."""
    base, val = {"base": str(model_folder())}, conversations(8, 100)
    options = {
        **OPTIONS,
        "steps": 6,
        "schedule": {"constant": {"warmup": 0}},
        "validation": {"every": 1, "generate": 6},
    }
    ruled = {**options, "early_stopping": {"metric": name, "patience": 9}}
    run, tuned = tune_in(
        tmp_path / "ruled", base, val=val, scorer=scorer(EVALUATE, TuneConfig.model_validate(ruled)), **ruled
    )
    values, weights = [], []
    for steps in range(1, 7):
        ended, _ = tune_in(tmp_path / str(steps), base, **{**options, "steps": steps})
        folder = ended.out / "adapter"
        values.append(measured(folder, base["base"], choose(val, 6, PURPOSE), name))
        weights.append(load_file(folder / "adapter_model.safetensors"))
    assert [row[f"val_{name}"] for row in lines_of(run.path)] == pytest.approx(values, rel=1e-4)
    best = values.index((min if lower else max)(values))
    assert tuned.progress.best_step == best + 1
    chosen = load_file(run.out / "adapter" / "adapter_model.safetensors")
    assert all(torch.equal(chosen[key], weights[best][key]) for key in chosen)


def measured(adapter: Path, base: str, rows: Sequence[Example], name: str) -> float:
    found = find_base(ModelConfig(base=base, adapter=str(adapter)))
    model = load_with_adapter(found, torch.float32, seed=7, device="cpu")
    observed = ask("tuned", contestant(model, renderer_of(found)), EVALUATE, rows)
    (metric,) = [one for one in EVALUATE.metrics if type(one).__module__.endswith(name)]
    return estimate(how(metric), score(metric, observe(metric, rows, observed)), 0.95)["value"]
