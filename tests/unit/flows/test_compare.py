"""Compared runs as they lie in folders: a tiny model tuned twice, and folders made by hand, some of them broken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from shell import refused, tuneloop
from toy import conversations

from tests.unit.evaluate.evaluated import side
from tests.unit.evaluate.test_pages import EVIL
from tests.unit.pages.whole import check
from tuneloop.core import jsonl
from tuneloop.core.runs import Run
from tuneloop.evaluate.comparing import Side
from tuneloop.flows.compare import Plan
from tuneloop.flows.comparison import Row, settings_apart
from tuneloop.flows.comparison_pages import to_html, to_markdown
from tuneloop.flows.recipe import Recipe


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def made(name: str, given: Side, done: bool = True, **evaluate: Any) -> Path:
    """The folder of an evaluate run with this report."""
    recipe = Recipe.model_validate({"name": name, "data": {"sources": [{"path": "x"}]}, "evaluate": evaluate})
    run = Run.create(Path("runs"), "evaluate", name, f"{name}-key", {"tuned": name}, recipe)
    jsonl.write(run.out / "report.json", given.report)
    jsonl.write_lines(run.out / "samples.jsonl", given.samples)
    if done:
        with run:
            pass
    return run.path


def scores(right: int, wrong: int) -> dict[str, list[float]]:
    return {"exact_match": [1.0] * right + [0.0] * wrong, "f1": [0.9] * right + [0.1] * wrong}


def test_the_gates_exit_codes_and_its_json() -> None:
    made("champion", side("a", scores(380, 20)))
    made("better", side("b", scores(398, 2)))
    made("worse", side("b", scores(300, 100)))
    made("doubtful", side("b", scores(377, 23)))
    asked = ("--gate", "exact_match=0.01", "--json")
    for name, code, verdict in (("better", 0, "pass"), ("worse", 3, "worse"), ("doubtful", 4, "not enough evidence")):
        answer = tuneloop("compare", "champion", name, *asked)
        assert answer.code == code, answer.err
        assert answer.json["gate"]["verdict"] == verdict and answer.json["exit"] == code
        assert answer.json["gate"]["rows"][0]["n"] == 400 and f"gate: {verdict} (exit {code})" in answer.err
        out = Path(answer.json["run"]) / "out"
        assert jsonl.read(out / "compare.json")["gate"] == answer.json["gate"]
        check((out / "compare.html").read_text("utf-8"))
    assert tuneloop("compare", "champion", "worse").code == 0, "without a gate nothing fails"
    assert tuneloop("compare", "champion", "better", *asked, "--gate-n", "500").code == 4
    assert tuneloop("compare", "champion", "better", "worse", *asked).code == 3


def test_the_recipe_of_the_last_run_may_have_the_gate() -> None:
    made("champion", side("a", scores(380, 20)), gate={"worse_by": {"f1": 0.5}})
    made("candidate", side("b", scores(300, 100)), gate={"worse_by": {"exact_match": 0.05}, "least": 50})
    answer = tuneloop("compare", "champion", "candidate", "--json")
    assert answer.code == 3 and answer.json["gate"]["least"] == 50
    assert tuneloop("compare", "champion", "candidate", "--gate", "f1=0.9", "--json").code == 0, (
        "the option is stronger"
    )
    assert tuneloop("compare", "candidate", "champion", "--json").json["gate"]["rows"][0]["metric"] == "f1"


def test_the_same_comparison_lies_in_one_folder() -> None:
    made("a", side("a", scores(5, 5)))
    made("b", side("b", scores(6, 4)))
    folders = {tuneloop("compare", "evaluate-a", "evaluate-b", "--json").json["run"] for _ in range(2)}
    assert len(folders) == 1
    assert tuneloop("compare", "evaluate-a", "evaluate-b", "--metric", "f1", "--json").json["run"] not in folders


def test_what_cannot_be_compared_is_told(tmp_path: Path) -> None:
    good = made("good", side("a", scores(5, 5)))
    made("other", side("b", scores(5, 5), start=1000))
    made("unfinished", side("b", scores(5, 5)), done=False)
    assert "no example in common" in refused("compare", good, "other")
    assert "evaluate run (created)" in refused("compare", good, "unfinished")
    assert "stands twice" in refused("compare", good, "good")
    assert "without its base" in refused("compare", good)
    assert "no run 'nothing'" in refused("compare", good, "nothing")
    assert "METRIC=MARGIN" in refused("compare", good, "other", "--gate", "f1")
    assert "belongs to --gate" in refused("compare", good, "other", "--gate-n", "5")
    prepared = Run.create(Path("runs"), "prepare", "p", "key", {}, Plan(runs=()))
    with prepared:
        pass
    assert "is a prepare run (done)" in refused("compare", good, prepared.path)
    tuned = Run.create(Path("runs"), "tune", "lonely", "key", {}, Plan(runs=()))
    with tuned:
        pass
    assert "no finished evaluation" in refused("compare", good, tuned.path)
    for name, spoil, told in (
        ("version", lambda out: jsonl.write(out / "report.json", {"version": 2, "metrics": {}}), "has version 2"),
        ("empty", lambda out: jsonl.write(out / "report.json", []), "is no report"),
        ("torn", lambda out: (out / "report.json").write_text('{"version": 1,'), "not valid JSON"),
        ("gone", lambda out: (out / "samples.jsonl").unlink(), "is missing"),
        ("lines", lambda out: (out / "samples.jsonl").write_text("{}\n{\n"), "samples.jsonl:2: not valid JSON"),
        ("no_id", lambda out: (out / "samples.jsonl").write_text("{}\n"), "line 1 of samples.jsonl has no id"),
    ):
        broken = Path(shutil.copytree(good, Path("runs") / f"1-evaluate-{name}"))
        spoil(broken / "out")
        assert told in refused("compare", good, broken), name


def test_output_of_models_is_shown_and_not_run() -> None:
    first, second = side(EVIL, scores(5, 5), says=EVIL), side("b", scores(4, 6), says=f"{EVIL} 码农", kind=[EVIL] * 10)
    made("a", first)
    made("b", second)
    found = tuneloop("compare", "evaluate-a", "evaluate-b", "--gate", "f1=0.1", "--json").json
    out = Path(found["run"]) / "out"
    page = (out / "compare.html").read_text("utf-8")
    check(page)
    assert "&lt;script&gt;" in page and "<ins>" in page
    text = (out / "compare.md").read_text("utf-8")
    assert "<script>" not in text.replace("\\<script\\>", "")
    row = Row(EVIL, {"seconds": 1.0}, curve=[(1, 2.0), (2, 1.0)])
    check(to_html([row, Row("failed", error=EVIL)], EVIL))
    assert "<script>" not in to_markdown([row, Row("failed", error=EVIL)], EVIL).replace("\\<script\\>", "")


def test_settings_apart(tmp_path: Path) -> None:
    values = [
        {"name": "a", "tune": {"epochs": 1, "method": {"lora": {"rank": 8}}}, "data": {"steps": []}, "track": 1},
        {"name": "b", "tune": {"epochs": 1, "method": {"full": {}}}, "data": {"steps": [{"pii": {}}]}},
    ]
    paths = {}
    for value in values:
        paths[value["name"]] = tmp_path / f"{value['name']}.yaml"
        paths[value["name"]].write_text(yaml.safe_dump(value))
    assert settings_apart(paths) == {
        "tune.method.lora.rank": {"a": "8", "b": "–"},
        "tune.method.full": {"a": "–", "b": "{}"},
        "data.steps": {"a": "[]", "b": "[{pii: {}}]"},
    }


def test_real_runs_of_a_tiny_model(model_folder: Callable[..., Path], tmp_path: Path) -> None:
    rows = [{"messages": [{"role": m.role, "content": m.content} for m in e.messages]} for e in conversations(24)]
    jsonl.write_lines(tmp_path / "rows.jsonl", rows)
    value: dict[str, Any] = {
        "name": "tiny",
        "model": {"base": str(model_folder("llama")), "dtype": "fp32"},
        "data": {"sources": [{"path": "rows.jsonl"}], "split": {"train": 0.5, "val": 0.25, "test": 0.25}},
        "tune": {"steps": 3, "batch_size": 4, "learning_rate": 1e-2, "validation": {"every": 1}},
        "evaluate": {"metrics": ["exact_match", "perplexity"], "max_new_tokens": 4, "slices": ["length"]},
        "track": {"to": []},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(value))
    first = tuneloop("run", "recipe.yaml", "--json").json["runs"]
    second = tuneloop("run", "recipe.yaml", "--set", "tune.learning_rate=2e-2", "--json").json["runs"]
    found = tuneloop("compare", first["tune"], second["evaluate"], "--json")
    assert found.code == 0, found.err
    assert found.json["shared"] == 6 and list(found.json["settings"]) == ["tune.learning_rate"]
    reference = jsonl.read(Path(first["evaluate"]) / "out" / "report.json")["metrics"]["perplexity"]["tuned"]
    assert found.json["metrics"]["perplexity"]["values"][found.json["reference"]] == pytest.approx(reference)
    assert all(row["costs"]["tokens_per_second"] > 0 and len(row["curve"]) == 3 for row in found.json["rows"])
    assert "Validation loss" in Path(found.json["page"]).read_text("utf-8")
    alone = tuneloop("compare", second["tune"], "--gate", "perplexity=1000", "--gate-n", "1", "--json")
    assert alone.code == 0 and alone.json["reference"] == "base"
    report = json.loads((Path(second["evaluate"]) / "out" / "report.json").read_text())["metrics"]["perplexity"]
    assert alone.json["metrics"]["perplexity"]["differences"]["tuned"] == pytest.approx(report["difference"])
