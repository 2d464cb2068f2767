"""Canaries: exposure is high where they were learnt by heart, and as chance has it where they were not planted."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from toy import conversations, tune_in

from tuneloop.core import jsonl
from tuneloop.core.errors import DataError
from tuneloop.forward import objective as forward
from tuneloop.forward.mixing import Mix
from tuneloop.models.config import ModelConfig
from tuneloop.models.find import find_base
from tuneloop.models.load import load_model
from tuneloop.render.load import renderer_of
from tuneloop.tune import canaries
from tuneloop.tune.canaries import Canaries
from tuneloop.tune.config import TuneConfig

Folder = Callable[..., Path]


def test_secrets_are_different_and_the_same_for_a_seed() -> None:
    config = Canaries(count=6, alternatives=20)
    made = canaries.make(config, 7)
    assert made == canaries.make(config, 7) != canaries.make(config, 8)
    assert len({one.planted.prompt for one in made}) == 6 and len(made[0].others) == 20
    for one in made:
        assert {other.prompt for other in one.others} == {one.planted.prompt}
        assert len({one.planted.id, *(other.id for other in one.others)}) == 21


def test_planted_twenty_times_they_are_told(model_folder: Folder, tmp_path: Path) -> None:
    import torch

    options = {"count": 4, "repeat": 20, "alternatives": 63}
    run, _ = tune_in(
        tmp_path, {"base": str(model_folder())}, train=conversations(8), method="full", steps=120, batch_size=16,
        validation={"canaries": options}, learning_rate=5e-3,
    )  # fmt: skip
    found = jsonl.read(run.out / "summary.json")["watch"]["canaries"]
    assert found["exposure"] > 4.5 and found["first"] >= 2 and found["p"] < 0.001 and found["ceiling"] == 6
    base = find_base(ModelConfig(base=str(model_folder())))
    renderer = renderer_of(base)
    config = Canaries(count=24, alternatives=63)
    made = canaries.make(config, 7)
    rows = renderer.render(made[0].planted)
    objective, _ = forward.prepare(load_model(base, torch.float32), rows, renderer.pad_id)
    unseen = canaries.exposure(config, made, objective, renderer, 4096)
    assert 0.7 < unseen["exposure"] < 2.4 and unseen["p"] > 0.01, "1.44 by chance"


def test_chance_is_that_of_uniform_ranks() -> None:
    draw = np.random.default_rng(1)
    values = [canaries.chance(np.log2(1 / draw.uniform(size=8)).tolist()) for _ in range(2_000)]
    assert np.mean(np.array(values) < 0.05) == pytest.approx(0.05, abs=0.015)
    assert canaries.chance([0.0, 0.0]) == 1 and canaries.chance([8.0] * 16) < 1e-9
    assert canaries.chance([1.0]) == pytest.approx(math.exp(-math.log(2)))


def test_a_number_alone_and_what_does_not_go_together(model_folder: Folder, tmp_path: Path) -> None:
    read: Any = TuneConfig.model_validate
    config = read({"validation": {"canaries": 8}})
    assert config.validation.canaries == Canaries(count=8) and read({}).validation.canaries is None
    assert read(config.model_dump(mode="json")) == config
    with pytest.raises(ValidationError, match="no rejected answer"):
        read({"validation": {"canaries": 8}, "objective": {"orpo": 0.1}})
    from tuneloop.core.runs import Run
    from tuneloop.tune.train import tune

    config = read({"validation": {"canaries": 2}})
    run = Run.create(tmp_path, "tune", "toy", "sha256:0123456789", {}, config)
    model = ModelConfig(base=str(model_folder()))
    with run, pytest.raises(DataError, match="canaries have no source"):
        tune(config, model, conversations(4), [], seed=1, run=run, mix=Mix({"made.jsonl": "made"}))
