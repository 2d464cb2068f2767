"""A grid and a search over a tiny model, in processes of their own: what is compared, what failed, what is resumed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest
import yaml
from shell import refused, tuneloop
from toy import conversations

from tuneloop.core import jsonl
from tuneloop.core.errors import RecipeError
from tuneloop.flows.sweep import Plan, parse_grid, variants


@pytest.fixture
def recipe(model_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rows = [{"messages": [{"role": m.role, "content": m.content} for m in e.messages]} for e in conversations(24)]
    jsonl.write_lines(tmp_path / "rows.jsonl", rows)
    value: dict[str, Any] = {
        "name": "tiny",
        "model": {"base": str(model_folder("llama")), "dtype": "fp32"},
        "data": {"sources": [{"path": "rows.jsonl"}], "split": {"train": 0.5, "val": 0.25, "test": 0.25}},
        "tune": {"steps": 3, "batch_size": 4, "learning_rate": 1e-2, "validation": {"every": 1}},
        "evaluate": {"metrics": ["exact_match"], "max_new_tokens": 4},
        "track": {"to": []},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(value))
    monkeypatch.chdir(tmp_path)
    return path


def run_in_this_process(monkeypatch: pytest.MonkeyPatch, but_first: int = 0) -> None:
    """Variants (but so many at first) by the same command line, without a new Python and its imports for each."""
    left = [None] * but_first

    def run(typed: list[str], *, stderr: IO[str], **options: Any) -> subprocess.CompletedProcess[str]:
        if left:
            left.pop()
            return subprocess.run(typed, stderr=stderr, **options)
        answer = tuneloop(*typed[3:])
        stderr.write(answer.err)
        return subprocess.CompletedProcess(typed, answer.code, answer.out)

    monkeypatch.setattr("tuneloop.flows.sweep.subprocess", SimpleNamespace(run=run, PIPE=subprocess.PIPE))


def test_a_grid_is_read_as_written(recipe: Path) -> None:
    grid = parse_grid(["tune.learning_rate=1e-4, 3e-4", "tune.method={lora: {rank: 2, alpha: 4}},full"])
    assert grid == {"tune.learning_rate": ["1e-4", "3e-4"], "tune.method": ["{lora: {rank: 2, alpha: 4}}", "full"]}
    names = [v.name for v in variants(Plan(recipes=[str(recipe)], grid=grid, settings=[]))]
    assert len(names) == 4 and names[1] == "learning_rate=1e-4 full"
    for wrong in ("tune.epochs", "=3", "tune.epochs="):
        with pytest.raises(RecipeError, match="KEY=VALUE"):
            parse_grid([wrong])
    with pytest.raises(RecipeError, match="given twice"):
        parse_grid(["a=1", "a=2"])


def test_a_mistake_in_any_variant_is_found_before_the_first_runs(recipe: Path) -> None:
    told = refused("sweep", recipe, "--grid", "tune.method=full,lorra")
    assert "lora" in told and not list(Path("runs").glob("*-tune-*"))
    assert "known" in refused("sweep", recipe, "--search", "2", "--grid", "tune.epochs=1..2", "--by", "no_metric")
    told = refused("sweep", recipe, "--grid", "tune.epochs=1,2", "--by", "length")
    assert "of length neither more nor less is better" in told and not list(Path("runs").glob("*-tune-*"))


def test_the_grid_is_run_in_processes_compared_and_not_run_twice(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_in_this_process(monkeypatch, but_first=1)
    typed = ["sweep", recipe, "--grid", "tune.learning_rate=1e-2,1e+30", "--name", "rates", "--json"]
    answer = tuneloop(*typed)
    assert answer.code == 0, answer.err
    good, bad = answer.json["rows"]
    assert bad["error"] and "learning_rate" in bad["error"], "one that fails is told and ends nothing"
    assert answer.json["best"] == good["name"] == "learning_rate=1e-2"
    assert good["costs"]["trained"] > 0 and good["costs"]["memory_gib"] > 0.1 and good["costs"]["val_loss"] > 0
    assert good["scores"]["exact_match"]["n"] == good["base"]["exact_match"]["n"] > 0
    assert len(good["curve"]) == 3
    out = Path(answer.json["run"]) / "out"
    page = (out / "sweep.html").read_text("utf-8")
    assert "learning_rate=1e-2" in page and "failed" in page and page.count("<svg") >= 6
    assert "| learning\\_rate=1e-2 |" in (out / "sweep.md").read_text("utf-8")
    before = sorted(path.name for path in Path("runs").glob("*-tune-*"))
    again = tuneloop(*typed[:2], "--grid", "tune.learning_rate=1e-2", "--json")
    assert again.json["rows"][0]["runs"]["tune"] == good["runs"]["tune"]
    assert sorted(path.name for path in Path("runs").glob("*-tune-*")) == before


def test_a_search_judges_on_validation_rows_and_only_the_best_is_evaluated(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")
    run_in_this_process(monkeypatch)
    answer = tuneloop("sweep", recipe, "--search", "2", "--grid", "tune.learning_rate=1e-4..1e-1", "--json")
    assert answer.code == 0, answer.err
    rows = {row["name"]: row for row in answer.json["rows"]}
    assert len(rows) == 2
    best = min(rows.values(), key=lambda row: row["costs"]["val_loss"])
    assert answer.json["best"] == best["name"]
    assert {name for name, row in rows.items() if row["scores"]} == {best["name"]}
    assert len(list(Path("runs").glob("*-evaluate-*"))) == 1
    record = json.loads((Path(answer.json["run"]) / "run.json").read_text())
    assert record["status"] == "done"
