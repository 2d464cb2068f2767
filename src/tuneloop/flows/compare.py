"""Finished runs compared on the examples that they share, with the release gate. The first one is the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.text import Text

from tuneloop.core import digest, jsonl, runs
from tuneloop.core import recipe as loading
from tuneloop.core.errors import DataError, RunError
from tuneloop.core.plugins import Branch
from tuneloop.core.runs import Run
from tuneloop.evaluate import gate as gates
from tuneloop.evaluate.comparing import Comparison, Side, Wanted, align
from tuneloop.evaluate.config import GateConfig
from tuneloop.evaluate.report import read
from tuneloop.flows import comparison, comparison_pages
from tuneloop.flows.comparison import Row
from tuneloop.track import console

Json = dict[str, Any]


class Plan(Branch):
    """What is compared; also the run's recipe.yaml."""

    runs: tuple[str, ...]
    """Evaluate runs, or tune runs for their latest evaluation; a single one is held against its own base."""
    metrics: tuple[str, ...] = ()
    """Only these; empty: all that the runs have in common."""
    slices: tuple[str, ...] = ()
    """Only these keys; `key=value` restricts the examples."""
    gate: GateConfig | None = None
    """What decides; null takes `evaluate.gate` of the last run's recipe, if it has one."""


def compare(plan: Plan, root: Path) -> Json:
    """Writes compare.json, compare.md and compare.html into a run folder; returns it, its value and the exit code."""
    evaluated = [evaluation(name, root) for name in plan.runs]
    if len({run.path.resolve() for run in evaluated}) < len(evaluated):
        raise RunError("the same run stands twice: " + ", ".join(str(run.path) for run in evaluated))
    plan = plan.model_copy(update={"gate": plan.gate or _gate_of(evaluated[-1])})
    wanted = Wanted(plan.metrics, plan.slices)
    compared = align(sides(evaluated), wanted)
    decided = gates.decide(compared, plan.gate) if plan.gate else None
    tunings = [tuning(run) for run in evaluated]
    title = " and ".join(side.name for side in compared.sides)
    rows = _rows(compared, evaluated, tunings)
    recipes = {name: run.path / "recipe.yaml" for name, run in zip(_names(evaluated), evaluated, strict=True)}
    settings = comparison.settings_apart(recipes)
    value = {
        **compared.to_json(), "forgetting": _forgetting(evaluated), "gate": decided, "settings": settings,
        "rows": [row.to_json() for row in rows],
    }  # fmt: skip
    run = _write(plan, root, evaluated, rows, title, value)
    console.say(comparison_pages.to_rich(rows, title, value))
    console.decided("page", str(run.out / "compare.html"))
    return {"run": str(run.path), "page": str(run.out / "compare.html"), "exit": decided["exit"] if decided else 0,
            **value}  # fmt: skip


def evaluation(name: str, root: Path) -> Run:
    """A finished evaluate run; of a tune run its latest evaluation. Raises RunError for any other run."""
    run = runs.resolve(root, name, stage="evaluate", done=True)
    if run.stage == "tune" and run.done:
        of = digest.of_value(run.record["outputs"])
        found = [one for one in runs.all_runs(run.path.parent) if one.stage == "evaluate" and one.done]
        found = [one for one in found if one.record["inputs"].get("tuned") == of]
        if not found:
            raise RunError(f"{run.path} has no finished evaluation; first: tuneloop evaluate {run.path}/recipe.yaml")
        return found[-1]
    if run.stage != "evaluate" or not run.done:
        raise RunError(
            f"{run.path} is a {run.stage} run ({run.status}); compare takes finished evaluate runs, or tune runs that "
            "were evaluated. `tuneloop runs list` shows them."
        )
    return run


def tuning(evaluated: Run) -> Run | None:
    """The tune run whose result an evaluation measured, where it still lies beside it."""
    wanted = evaluated.record["inputs"].get("tuned")
    beside = [run for run in runs.all_runs(evaluated.path.parent) if run.stage == "tune" and run.done]
    return next((run for run in reversed(beside) if digest.of_value(run.record["outputs"]) == wanted), None)


def sides(evaluated: Sequence[Run]) -> list[Side]:
    """What is compared: the tuned models of several runs, or base and tuned of one."""
    found: list[Side] = []
    for name, run in zip(_names(evaluated), evaluated, strict=True):
        for file in ("report.json", "samples.jsonl"):
            if not (run.out / file).is_file():
                raise DataError(f"{run.out / file} is missing: the run is not whole; tuneloop evaluate makes it anew")
        report = read(run.out)
        if not isinstance(report.value, dict) or not isinstance(report.value.get("metrics"), dict):
            raise DataError(f"{run.out}/report.json is no report of an evaluation")
        for number, line in enumerate(report.samples, 1):
            if not isinstance(line.get("id"), str) or not isinstance(line.get("scores"), dict):
                raise DataError(f"{run.out}: line {number} of samples.jsonl has no id or no scores")
        found.append(Side(name, report.value, report.samples))
    if len(found) > 1:
        return found
    (only,) = found
    if not any("base" in entry for entry in only.report["metrics"].values()):
        raise DataError(
            f"{only.name} was evaluated without its base (evaluate.base: false), so there is nothing to compare it "
            "with; name a second run"
        )
    return [Side("base", only.report, only.samples, "base"), Side("tuned", only.report, only.samples)]


def _names(evaluated: Sequence[Run]) -> list[str]:
    """Folder names without time and stage; whole paths where these are alike."""
    short = [run.path.name.partition("-evaluate-")[2] or run.path.name for run in evaluated]
    return short if len(set(short)) == len(short) else [str(run.path) for run in evaluated]


def _rows(compared: Comparison, evaluated: Sequence[Run], tunings: Sequence[Run | None]) -> list[Row]:
    """Costs and curves of the runs, with the scores on the shared examples."""
    measured = compared.measured(compared.confidence)
    rows: list[Row] = []
    names = _names(evaluated)
    for name, run, tuned in zip(names, evaluated, tunings, strict=True):
        row = comparison.row_of(name, tuned.path if tuned else None, run.path)
        who = name if len(names) > 1 else "tuned"
        scores = {metric: found.values[who] for metric, found in measured.items()}
        rows.append(replace(row, scores=scores, base={}))
    return rows


def _forgetting(evaluated: Sequence[Run]) -> Json:
    """Ability → run → numbers of base and tuned and their difference: of each run against its own base."""
    found: Json = {}
    for name, run in zip(_names(evaluated), evaluated, strict=True):
        for ability, entry in comparison.abilities(jsonl.read(run.out / "report.json")).items():
            known = {key: entry[key] for key in ("better", "base", "tuned", "difference") if key in entry}
            if "tuned" in known:
                found.setdefault(ability, {})[name] = known
    return found


def _gate_of(run: Run) -> GateConfig | None:
    """`evaluate.gate` of a run's recipe."""
    value: Mapping[str, Any] = loading.read_yaml(run.path / "recipe.yaml").value.get("evaluate") or {}
    return GateConfig.model_validate(value["gate"]) if value.get("gate") else None


def _write(plan: Plan, root: Path, evaluated: Sequence[Run], rows: Sequence[Row], title: str, value: Json) -> Run:
    inputs = {str(run.path): digest.of_value(run.record["outputs"]) for run in evaluated}
    key = runs.run_key("compare", plan.model_dump(mode="json"), inputs)
    name = evaluated[-1].record["name"]
    run = runs.find(root, key, done=True)
    if run is not None:  # the same comparison: its pages are written anew, by this version
        console.say(Text(f"compare: again in {run.path}", "dim"))
    else:
        run = Run.create(root, "compare", name, key, inputs, plan)
    with run:
        jsonl.write(run.out / "compare.json", value)
        jsonl.write_text(run.out / "compare.md", comparison_pages.to_markdown(rows, title, value))
        jsonl.write_text(run.out / "compare.html", comparison_pages.to_html(rows, title, value))
    return run
