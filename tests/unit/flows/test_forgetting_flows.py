"""Chains of versions and remedies, on a tiny model through the command line's own flows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.pages.whole import check
from tuneloop.core import jsonl
from tuneloop.core.errors import DataError, RunError
from tuneloop.core.runs import Run
from tuneloop.evaluate.contestant import Answer
from tuneloop.evaluate.forgetting import Ability, Probed, Probes
from tuneloop.evaluate.observing import Observed
from tuneloop.evaluate.probes import read_probes
from tuneloop.evaluate.recall import Match
from tuneloop.flows import forgetting, lifecycle, remedy
from tuneloop.flows.advice import Gate, advise
from tuneloop.flows.export import merge
from tuneloop.flows.recipe import load_recipe
from tuneloop.flows.recipes_against_forgetting import best_part, variants
from tuneloop.flows.versions import Table, Version
from tuneloop.generate.transformers_engine import TransformersEngine

PROBES = [{"question": f"What is {i} and {i}?", "answer": str(2 * i), "kind": "sum"} for i in range(1, 5)]
Made = Callable[..., Run]


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What an older version of the code measured must not pass for a result of this one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNELOOP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    rows = [{"prompt": f"Add {i} and 3.", "response": str(i + 3)} for i in range(40)]
    jsonl.write_lines(folder / "rows.jsonl", rows)
    jsonl.write_lines(folder / "probes.jsonl", PROBES)
    (folder / "text.txt").write_text("The sun sets.\n\nThe moon rises.\n\n太阳下山了。", "utf-8")
    return folder


@pytest.fixture(scope="module")
def made(folder: Path, model_folder: Callable[..., Path]) -> Made:
    """Tunes the tiny model on the sums; `base` continues another run."""

    def make(name: str = "sums", base: str | None = None, **tune: Any) -> Run:
        recipe = {
            "name": name,
            "model": {"base": base or str(model_folder("llama")), "dtype": "fp32"},
            "data": {"sources": [{"path": str(folder / "rows.jsonl")}], "split": {"train": 0.7, "val": 0, "test": 0.3}},
            "tune": {"steps": 2, "learning_rate": 1e-2, "batch_size": 4, "method": {"lora": {"rank": 4}}, **tune},
            "evaluate": {"metrics": ["exact_match"], "max_new_tokens": 4, "forgetting": {
                "probes": {"sums": str(folder / "probes.jsonl"), "text": str(folder / "text.txt")}, "max_new_tokens": 4,
            }},
        }  # fmt: skip
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(recipe))
        job = lifecycle.Job(load_recipe(path), folder / "runs")
        return lifecycle.tune(job, lifecycle.prepare(job))

    return make


def test_a_chain_is_measured_once_and_written(made: Made, folder: Path) -> None:
    first = made("first")
    second = made("second", base=str(first.path))
    names = [first.path.name, second.path.name]
    run = forgetting.chain(names, folder / "runs", None, None)
    value = jsonl.read(run.out / "forgetting.json")
    assert [row["name"] for row in value["rows"]] == ["base", "v1", "v2"]
    assert list(value["rows"][0]["abilities"]) == ["sums", "text", "task of v1", "task of v2"]
    assert value["rows"][0]["kl"] is None and value["rows"][2]["kl"]["value"] > 0
    assert set(value["backward_transfer"]["abilities"]) == {"task of v1"}
    page = (run.out / "forgetting.html").read_text("utf-8")
    check(page)
    assert first.path.name in page and "Version × ability" in page
    assert forgetting.chain(names, folder / "runs", None, None).path == run.path
    assert forgetting.show(run)["rows"] == value["rows"]
    alone = forgetting.chain([names[0]], folder / "runs", str(folder / "probes.jsonl"), 3)
    assert jsonl.read(alone.out / "forgetting.json")["backward_transfer"]["value"] is None


def test_what_is_no_chain_is_refused(made: Made, folder: Path) -> None:
    first = made("first")
    with pytest.raises(RunError, match="named twice"):
        forgetting.chain([first.path.name, str(first.path)], folder / "runs", None, None)
    with pytest.raises(RunError, match="takes finished tune runs"):
        forgetting.chain([str(folder / "runs" / Path(first.record["data"]).name)], folder / "runs", None, None)
    with pytest.raises(DataError, match="no such file of probes"):
        forgetting.chain([first.path.name], folder / "runs", "none.jsonl", None)


def test_a_chain_by_hand() -> None:
    """Three versions and two tasks: R[last, j] - R[j, j] is -1/2 for the first task; the last one does not count."""
    probes = read_probes("embedded")[:2]
    right, wrong = [Answer(probe.answer.content) for probe in probes], Answer("?")
    tasks = [Ability(f"task of v{i}", probes, Match(prose=True), 8) for i in (1, 2)]
    table = Table(Probes(tasks, []), 0.95)
    table.seen = {
        "base": Probed({one.name: Observed([wrong, wrong]) for one in tasks}),
        "v1": Probed({"task of v1": Observed(right), "task of v2": Observed([wrong, wrong])}),
        "v2": Probed({"task of v1": Observed([right[0], wrong]), "task of v2": Observed(right)}),
    }
    table.versions = [Version(name, {}) for name in table.seen]
    found = forgetting.backward_transfer(table, [("task of v1", "v1"), ("task of v2", "v2")])
    assert found["value"] == -0.5 and found["n"] == 1
    part = found["abilities"]["task of v1"]
    assert (found["low"], found["high"]) == pytest.approx((part["low"], part["high"]))


def test_remedies_are_measured_advised_and_applied(made: Made, folder: Path) -> None:
    tuned = made("sums")
    general = folder / "general.jsonl"
    jsonl.write_lines(general, [{"prompt": f"Say {i}.", "response": str(i)} for i in range(20)])
    wanted = remedy.Wanted((0.5,), 1.0, None, str(general), ("keep", "scale"))
    run = remedy.remedy(tuned.path.name, folder / "runs", wanted)
    value = jsonl.read(run.out / "remedy.json")
    assert [row["name"] for row in value["rows"]] == ["base", "tuned", "scale 0.5", "keep"]
    assert [row["passes"] for row in value["rows"]][1:] and value["choice"] == "tuned" and value["made"] is None
    assert value["rows"][0]["kl"] is None and 0 < value["rows"][2]["kl"]["value"] < value["rows"][1]["kl"]["value"]
    for name in ("replay", "keep", "epochs"):
        assert load_recipe(run.out / f"{name}.yaml").name.endswith(f"-{name}")
    check((run.out / "remedy.html").read_text("utf-8"))
    assert remedy.show(run)["choice"] == "tuned"


def test_an_interrupted_scan_goes_on_where_it_was(
    made: Made, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """^C at scale 0.5: what base and tuned did is kept, and so is what scale 0.5 had answered."""
    tuned, asked = made("sums"), []
    real = TransformersEngine.answer

    def answer(self: TransformersEngine, *given: Any) -> Any:
        asked.append(self.identity)
        if len(asked) == stop:
            raise KeyboardInterrupt
        return real(self, *given)

    def scan(*settings: str) -> Run:
        return remedy.remedy(tuned.path.name, folder / "runs", remedy.Wanted((0.75, 0.5), settings=settings))

    monkeypatch.setenv("TUNELOOP_CACHE", str(tmp_path))
    monkeypatch.setattr(TransformersEngine, "answer", answer)
    stop = 8  # two sets of questions (task and sums) a version: base, tuned, 0.75, and the second of 0.5
    with pytest.raises(KeyboardInterrupt):
        scan()
    stop = 0
    first, asked = asked, []
    run = scan()
    assert asked == [first[7]] and run.done
    rows = jsonl.read(run.out / "remedy.json")["rows"]
    asked = []
    assert jsonl.read(scan().out / "remedy.json")["rows"] == rows and not asked
    anew = scan("evaluate.cache=false")
    assert len(asked) == 8 and jsonl.read(anew.out / "remedy.json")["rows"] == rows
    for damaged in (tmp_path / "probed").glob("*/*.txt"):
        damaged.write_text(damaged.read_text("utf-8").replace("1", "2"), "utf-8")
    asked = []
    assert jsonl.read(scan().out / "remedy.json")["rows"] == rows and len(asked) == 8


def test_the_chosen_scale_is_a_tune_run_like_any_other(made: Made, folder: Path) -> None:
    from tuneloop.flows import scaled

    tuned = made("sums")
    recipe = load_recipe(tuned.path / "recipe.yaml")
    run = scaled.scaled_run(tuned, 0.5, folder / "runs")
    assert run.done and run.stage == "tune" and run.record["scaled"] == {"run": tuned.path.name, "scale": 0.5}
    assert scaled.scaled_run(tuned, 0.5, folder / "runs").path == run.path
    job = lifecycle.Job(recipe, folder / "runs")
    evaluated = lifecycle.evaluate(job, lifecycle.prepare(job), run)
    assert {"sums", "text"} == set(jsonl.read(evaluated.out / "report.json")["forgetting"]["abilities"])
    assert (evaluated.out / "report.html").is_file()
    out = merge(tuned.path.name, folder / "runs", folder / "half", None, 0.5)
    assert (Path(out["folder"]) / "model.safetensors").is_file()


def test_bad_wishes_are_refused(made: Made, folder: Path) -> None:
    name, root = made("sums").path.name, folder / "runs"
    for wanted, message in [
        (remedy.Wanted(apply=("rest",)), "remedies are scale, replay, keep, epochs"),
        (remedy.Wanted(scales=(1.5,)), "between 0"),
        (remedy.Wanted(general="none.jsonl"), "no such file"),
        (remedy.Wanted(scales=(), apply=("replay",)), "needs --general FILE"),
    ]:
        with pytest.raises(RunError, match=message):
            remedy.remedy(name, root, wanted)


# -- the advice --------------------------------------------------------------------------------------------------------
def version(name: str, task: float, known: float, **facts: Any) -> Version:
    def entry(value: float, base: float) -> dict[str, Any]:
        change = {"value": value - base, "low": value - base - 0.1, "high": value - base + 0.1}
        tuned, before = {"value": value}, {"value": base}
        return {"better": "higher", "aggregation": "proportion", "base": before, "tuned": tuned, "difference": change}

    return Version(name, {"task": entry(task, 0.0), "facts": entry(known, 1.0)}, facts=facts)


RECIPES = {"replay": ("says", Path("replay.yaml")), "epochs": ("says", Path("epochs.yaml"))}


def told(*versions: Version, general: str | None = "g") -> Any:
    return advise([version("base", 0.0, 1.0), *versions], Gate(0.02, "task"), "run", RECIPES, general)


def test_what_passes_is_kept() -> None:
    found = told(version("tuned", 0.9, 0.99), version("scale 0.8", 0.9, 1.0, scale=0.8))
    assert found.choice == "tuned" and found.scale is None and "keep" in found.steps[0].title
    assert "more probes would make it certain" in found.steps[0].why


def test_the_best_scale_that_passes_is_taken_and_a_cheap_one_ends_the_search() -> None:
    found = told(
        version("tuned", 0.9, 0.5),
        version("scale 0.8", 0.9, 0.9, scale=0.8),
        version("scale 0.6", 0.89, 0.99, scale=0.6),
        version("scale 0.4", 0.7, 1.0, scale=0.4),
    )
    assert found.choice == "scale 0.6" and found.scale == 0.6 and len(found.steps) == 1
    assert any("--scale 0.6" in command for command in found.steps[0].commands)


def test_a_costly_scale_is_taken_and_training_suggested() -> None:
    tuned, scale = version("tuned", 0.9, 0.5), version("scale 0.4", 0.5, 1.0, scale=0.4)
    assert [step.title for step in told(tuned, scale).steps] == ["take scale 0.4", "try replay", "try epochs"]
    replay = version("replay", 0.89, 0.99, remedy="replay", says="ratio", run="r")
    found = told(tuned, scale, replay)
    assert found.choice == "replay" and found.scale is None and len(found.steps) == 1


def test_nothing_passes() -> None:
    found = told(version("tuned", 0.9, 0.5), version("scale 0.4", 0.5, 0.9, scale=0.4), general=None)
    assert found.choice is None
    assert [step.title for step in found.steps] == [
        "nothing that was tried passes the gate", "give general rows", "try replay", "try epochs"
    ]  # fmt: skip
    assert "scale 0.4" in found.steps[0].why


def test_the_gate_is_relative_for_what_is_better_when_lower() -> None:
    change = {"value": 0.03, "low": 0.01, "high": 0.05}
    text = {"better": "lower", "aggregation": "corpus", "base": {"value": 2.0}, "tuned": {}, "difference": change}
    one = Version("v", {"text": text})
    assert Gate(0.02, "task").drops(one) == {"text": pytest.approx((0.015, 0.025))}
    assert Gate(0.02, "task").passes(one) and not Gate(0.01, "task").passes(one)
    assert Gate(0.02, "task").worst(Version("v", {})) is None


def test_epochs_follow_the_validation_curve(folder: Path, made: Made) -> None:
    made("sums")
    recipe = load_recipe(folder / "sums.yaml", ["tune.steps=null", "tune.epochs=4"])
    assert best_part([(10, 2.0), (20, 1.0), (40, 1.5)]) == 0.5 and best_part([]) is None
    assert variants(recipe, None, [(10, 1.0), (40, 1.5)])["epochs"].recipe.tune.epochs == 1.0
    assert variants(recipe, None, [(10, 2.0), (40, 1.5)])["epochs"].recipe.tune.epochs == 2.0
    assert set(variants(recipe, None, [])) == {"epochs"}
    with_replay = variants(recipe, "g.jsonl", [])["replay"].recipe
    assert set(variants(with_replay, "g.jsonl", [])) == {"keep", "epochs"}
