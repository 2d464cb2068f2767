"""Resumed = uninterrupted with a mix too: which rows an epoch has follows from its number alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toy import conversations, job_of, lines_of, random_rows, weights_of

from tuneloop.core import jsonl
from tuneloop.core.conversation import Origin
from tuneloop.core.errors import RunError
from tuneloop.core.runs import Run
from tuneloop.data.mix import MixConfig, write_mix
from tuneloop.flows import lifecycle
from tuneloop.flows.recipe import load_recipe
from tuneloop.forward.mixing import Mix, Mixture
from tuneloop.forward.objective import mean_nll
from tuneloop.track import metrics
from tuneloop.tune.loop import Job, train
from tuneloop.tune.optimizer import MasterOptimizer
from tuneloop.tune.validation import Measured

Make = Callable[..., Any]
STEPS = 9
MIX = Mix({"domain": "domain", "general": "general"}, replay="general", ratio=0.2)


def job(model: Any, folder: Path, **config: Any) -> Job:
    """Three epochs of 10 rows: 8 of the domain (one of them stands twice) and 2 of 13 general ones."""
    torch.manual_seed(11)
    domain, general = random_rows(7), random_rows(13, seed=1)

    def validate() -> Measured:
        return Measured({"loss": (mean_nll(made.objective, made.rows[:3], pad_id=0, budget=100), True)})

    made = job_of(
        model, [domain[0], *domain, *general], folder, validate=validate, save_every=2, learning_rate=3e-3,
        **{"steps": STEPS, "validation": {"every": 3}, "early_stopping": {"patience": 5}, **config},
    )  # fmt: skip
    return replace(made, mixture=Mixture.of(MIX, ["domain"] * 8 + ["general"] * 13, made.seed))


def interrupted(step: Callable[..., None], at: int) -> Callable[..., None]:
    """The same step until `at` of them are done; then as if ^C came twice."""
    done = 0

    def killed(*arguments: Any) -> None:
        nonlocal done
        if done == at:
            raise KeyboardInterrupt
        done += 1
        step(*arguments)

    return killed


@pytest.mark.parametrize("at", [4, 5])
def test_interrupted_in_the_second_epoch(at: int, tiny_model: Make, tmp_path: Path) -> None:
    whole = job(tiny_model("gpt2"), tmp_path / "whole")
    assert (whole.steps_per_epoch, whole.total_steps) == (3, STEPS)
    expected = train(whole)
    broken = job(tiny_model("gpt2"), tmp_path / "broken")
    object.__setattr__(broken.optimizer, "step", interrupted(broken.optimizer.step, at))
    with pytest.raises(KeyboardInterrupt):
        train(broken)
    torch.rand(7)
    again = job(tiny_model("gpt2", seed=99), tmp_path / "broken")
    assert train(again) == expected
    ours, theirs = weights_of(whole), weights_of(again)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert lines_of(tmp_path / "broken") == lines_of(tmp_path / "whole")


def test_what_the_epochs_see(tiny_model: Make, tmp_path: Path) -> None:
    made = job(tiny_model(), tmp_path)
    epochs = [[row for step in made.order.epoch(epoch) for row in step] for epoch in range(7)]
    assert all(sorted(row for row in epoch if row < 8) == list(range(8)) for epoch in epochs)
    general = Counter(row for epoch in epochs for row in epoch if row >= 8)
    assert general.total() == 14 and len(general) == 13, "two an epoch, all thirteen before one comes again"
    assert len({tuple(epoch) for epoch in epochs}) == 7
    train(made)
    tokens = [row["tokens"] for row in lines_of(tmp_path)]
    planned = [sum(len(made.rows[row]) for row in step) for epoch in range(3) for step in made.order.epoch(epoch)]
    assert tokens == planned
    in_order = job(tiny_model(), tmp_path / "curriculum", shuffle=False).order.epoch(1)
    rows = [row for step in in_order for row in step]
    assert rows == sorted(rows) and Counter(rows) == Counter(epochs[1])


def test_epochs_and_early_stopping_count_in_mixed_epochs(tiny_model: Make, tmp_path: Path) -> None:
    made = job(
        tiny_model(), tmp_path, steps=None, epochs=2, validation={}, early_stopping={"patience": 1, "min_delta": 9}
    )
    assert made.total_steps == 6 and made.validate_every == 1
    progress = train(made)
    assert progress.stopped and progress.step == 2 and progress.best_step == 1


# -- through the flow --------------------------------------------------------------------------------------------------
RECIPE = """
name: mixed
seed: 3
model: {{base: {base}, dtype: fp32}}
data: {{sources: [{{path: domain.jsonl}}, {{path: general.jsonl}}]}}
tune: {{method: {{lora: {{rank: 4, dropout: 0.2}}}}, epochs: 3, batch_size: 4, learning_rate: 1.0e-2, save_every: 1}}
"""
SOURCES = {"domain.jsonl": "domain.jsonl", "general.jsonl": "general.jsonl"}


def prepared(root: Path, recipe: Any, mix: MixConfig) -> Run:
    """What `prepare` leaves for `tune`: nine rows of the domain, the first thrice; 31 general ones."""
    domain = [replace(row, origin=Origin("domain.jsonl", row.origin.row)) for row in conversations(9)]
    general = [replace(row, origin=Origin("general.jsonl", row.origin.row)) for row in conversations(30, start=50)]
    general.append(replace(domain[1], origin=Origin("general.jsonl", 99)))
    both = [domain[0], domain[0], *domain, *general]
    run = Run.create(root, "prepare", "mixed", "sha256:0123456789", {}, recipe)
    with run:
        jsonl.write_lines(run.out / "train.jsonl", (example.to_json() for example in both))
        jsonl.write_lines(run.out / "val.jsonl", (example.to_json() for example in conversations(4, start=900)))
        jsonl.write(run.out / "card.json", {"findings": []})
        write_mix(mix, run.out, SOURCES)
    return run


def test_through_the_flow(
    model_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(base=model_folder("gpt2")))
    recipe = load_recipe(path)
    mix = MixConfig.model_validate({"replay": {"source": "general.jsonl", "ratio": 0.25}})
    data = prepared(tmp_path / "data", recipe, mix)
    whole = lifecycle.tune(lifecycle.Job(recipe, tmp_path / "whole"), data)
    said = " ".join(capsys.readouterr().err.split())
    assert "15 rows: 11 of domain.jsonl (of 11), 4 of general.jsonl (of 31), drawn anew each epoch" in said
    assert "12 of 4 examples" in said, "three epochs of four steps"
    assert len(metrics.read(whole.path / "metrics.jsonl")) == 12

    broken = lifecycle.Job(recipe, tmp_path / "broken")
    with monkeypatch.context() as patch:
        patch.setattr(MasterOptimizer, "step", interrupted(MasterOptimizer.step, at=6))
        with pytest.raises(KeyboardInterrupt):
            lifecycle.tune(broken, data)
    resumed = lifecycle.tune(broken, data)
    assert lines_of(resumed.path) == lines_of(whole.path)
    name = "adapter/adapter_model.safetensors"
    assert (resumed.out / name).read_bytes() == (whole.out / name).read_bytes()

    # another mix of the same rows is another run
    assert lifecycle.finished_tuning(broken, data).path == resumed.path
    for other in (MixConfig(), MixConfig.model_validate({"temperature": 2})):
        with pytest.raises(RunError, match="no finished tune run of this recipe"):
            lifecycle.finished_tuning(broken, prepared(tmp_path / "data", recipe, other))
