"""Micro-batches found by trying, and what is said when memory does not suffice."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from toy import random_rows, tune_in

from tuneloop.core.errors import TrainingError
from tuneloop.core.runs import Run
from tuneloop.forward.attention import use_packed
from tuneloop.forward.batch import Batch
from tuneloop.forward.objective import Objective
from tuneloop.tune.budget import find_budget, in_words
from tuneloop.tune.config import TuneConfig
from tuneloop.tune.memory import Need, explained, remedies

Make = Callable[..., Any]


class Small(Objective):
    """A device on which more than `limit` tokens do not fit."""

    limit = 0

    def forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        if batch.ids.numel() > self.limit:
            raise torch.OutOfMemoryError("out of memory")
        return super().forward(batch)


def small(model: Any, limit: int) -> Small:
    use_packed(model)
    objective = Small(model, packed=True)
    objective.limit = limit
    return objective


def test_the_budget_backs_off_where_memory_ends_and_leaves_no_trace(tiny_model: Make) -> None:
    objective = small(tiny_model(), 700)
    rows = random_rows(200)
    before = torch.get_rng_state()
    budget, trials = find_budget(objective, rows, batch_size=200, pad_id=0)
    assert [trial.budget for trial in trials] == [256, 512, 1024]
    assert trials[-1].seconds is None and budget in (256, 512)
    assert "1,024: out of memory" in in_words(budget, trials)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.grad is None for p in objective.parameters())
    assert all(trial.tokens <= trial.budget for trial in trials)


def test_a_step_or_a_known_limit_ends_the_search(tiny_model: Make) -> None:
    objective = small(tiny_model(), 1 << 30)
    _, trials = find_budget(objective, random_rows(8), batch_size=8, pad_id=0)
    assert len(trials) == 1, "a whole step fits"
    _, trials = find_budget(objective, random_rows(300), batch_size=300, pad_id=0, may_hold=600)
    assert [trial.budget for trial in trials] == [256, 512]
    with pytest.raises(TrainingError, match="smallest micro-batch"):
        find_budget(small(tiny_model(), 3), random_rows(8), batch_size=8, pad_id=0)


def test_the_found_budget_is_kept_for_the_resumed_run(model_folder: Callable[..., Path], tmp_path: Path) -> None:
    options: dict[str, Any] = {"memory": {"token_budget": "find"}, "steps": 2}
    run, _ = tune_in(tmp_path, {"base": str(model_folder("llama"))}, **options)
    known = run.out / "token_budget.json"
    assert json.loads(known.read_text())["token_budget"] >= 256
    other = Run.create(tmp_path, "tune", "again", "sha256:99", {}, TuneConfig())
    (other.out / known.name).write_text('{"token_budget": 77}')
    tune_in(tmp_path, {"base": str(model_folder("llama"))}, run=other, **options)
    assert (other.out / known.name).read_text() == '{"token_budget": 77}', "not searched for again"


def test_running_out_names_settings_that_need_less(tiny_model: Make) -> None:
    config = TuneConfig.model_validate({"method": "full", "memory": {"token_budget": 4096}})
    need = Need(config, tiny_model().config, 4096, torch.float32, "cpu", 0.5)
    with pytest.raises(TrainingError) as told, explained(need, 64):
        raise torch.OutOfMemoryError("CUDA out of memory")
    text = str(told.value)
    assert text.count("--set") >= 3 and "--set tune.memory.token_budget=2048" in text
    for settings, other in remedies(need, 64):
        assert other.fit().total < need.fit().total
        if settings in text:
            assert other.fit().total <= 0.8 * need.fit().total
    with pytest.raises(RuntimeError, match="shapes"), explained(need, 64):
        raise RuntimeError("shapes do not match")


def test_a_cpu_that_refuses_memory_is_understood() -> None:
    code = """
import resource, torch
from tuneloop.tune.budget import is_out_of_memory
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
try:
    torch.empty(1 << 40)
except RuntimeError as error:
    assert is_out_of_memory(error), error
    print("understood")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "understood"
