"""Micro-batches found by trying, and what is said when memory does not suffice."""

from __future__ import annotations

import json
import resource
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
from tuneloop.forward.divergence import Side
from tuneloop.forward.objective import Objective
from tuneloop.render.rendered import Rendered
from tuneloop.tune.budget import find_budget, given_budget, in_words, is_out_of_memory
from tuneloop.tune.config import Memory, TuneConfig
from tuneloop.tune.memory import Need, explained, remedies
from tuneloop.tune.objective import ObjectiveConfig
from tuneloop.tune.terms import Extras, Terms

Make = Callable[..., Any]


class Small(Objective):
    """A device on which more than `limit` tokens do not fit."""

    limit = 0

    def side(self, batch: Batch, neftune: float = 0.0) -> Side:
        if batch.ids.numel() > self.limit:
            raise torch.OutOfMemoryError("out of memory")
        return super().side(batch, neftune)


def small(model: Any, limit: int, rows: list[Rendered], **config: Any) -> Terms:
    use_packed(model)
    objective = Small(model, packed=True)
    objective.limit = limit
    rejected = random_rows(len(rows), seed=1) if "orpo" in config else []
    return Terms(ObjectiveConfig(**config), objective, rows, Extras(rejected), 7, 0, 0)


def test_the_budget_backs_off_where_memory_ends_and_leaves_no_trace(tiny_model: Make) -> None:
    terms = small(tiny_model(), 700, random_rows(200))
    before = torch.get_rng_state()
    budget, trials = find_budget(terms, batch_size=200)
    assert [trial.budget for trial in trials] == [256, 512, 1024]
    assert trials[-1].seconds is None and budget in (256, 512)
    assert "1,024: out of memory" in in_words(budget, trials)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.grad is None for p in terms.objective.parameters())
    assert all(trial.tokens <= trial.budget for trial in trials)


def test_a_step_or_a_known_limit_ends_the_search(tiny_model: Make) -> None:
    _, trials = find_budget(small(tiny_model(), 1 << 30, random_rows(8)), batch_size=8)
    assert len(trials) == 1, "a whole step fits"
    _, trials = find_budget(small(tiny_model(), 1 << 30, random_rows(300)), batch_size=300, may_hold=600)
    assert [trial.budget for trial in trials] == [256, 512]
    with pytest.raises(TrainingError, match="smallest micro-batch"):
        find_budget(small(tiny_model(), 3, random_rows(8)), batch_size=8)


def test_what_is_tried_is_what_is_trained(tiny_model: Make) -> None:
    """Pairs run as pairs: with both answers in memory half as many rows fit."""
    rows = random_rows(200)
    found = [find_budget(small(tiny_model(), 1 << 30, rows, **config), 200)[1] for config in ({}, {"orpo": 0.1})]
    tokens = [trials[-1].tokens for trials in found]
    assert tokens[0] == sum(map(len, rows)) and tokens[1] == tokens[0] + sum(map(len, random_rows(200, seed=1)))


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
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 40, hard))  # far from what this process has
    try:
        with pytest.raises(RuntimeError) as refused:
            torch.empty(1 << 40)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert is_out_of_memory(refused.value), refused.value


MEMORY: dict[str, tuple[dict[str, Any], float]] = {
    "switched off": ({"method": "lora"}, 0),
    "loaded again": ({"method": {"lora": {"rank": 4, "init": "pissa"}}}, 1),
    "copied whole": ({"method": "full"}, 1),
    "a copied part": ({"method": {"freeze": {"layers": 1}}}, 0.5),
    "whole matrices of chosen entries": ({"method": {"sparse": {"fraction": 0.001}}}, 0.7),
}


@pytest.mark.parametrize("case", MEMORY)
def test_what_the_base_of_keep_needs(case: str, tiny_model: Make) -> None:
    method, least = MEMORY[case]
    config = TuneConfig.model_validate({**method, "objective": {"keep": {}}})
    model = tiny_model()
    whole = 4 * sum(p.numel() for p in model.parameters())
    teachers = Need(config, model.config, 64, torch.float32, "cpu", 0.5).fit().teachers
    assert 0.2 * least * whole <= teachers <= least * whole


def test_weights_that_are_loaded_are_not_needed_again(tiny_model: Make) -> None:
    need = Need(TuneConfig(), tiny_model().config, 64, torch.float32, "cpu", 0.5)
    held = Need(TuneConfig(), tiny_model().config, 64, torch.float32, "cpu", 0.5, held=1 << 40)
    assert held.fit().available - need.fit().available > 1 << 39


def test_the_recipe_comes_before_the_device() -> None:
    assert given_budget(Memory(token_budget=300), "cuda:0") == 300
    for unsaid in (Memory(), Memory(token_budget="find")):
        assert given_budget(unsaid, "cuda:0") > given_budget(unsaid, "cpu") > 0
