"""A chain of versions: what each can do, what was lost on the way, and backward transfer."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tuneloop.core import digest, jsonl, runs
from tuneloop.core.errors import RunError
from tuneloop.core.runs import Run, resolve
from tuneloop.evaluate import forgetting
from tuneloop.evaluate.config import ForgettingConfig
from tuneloop.evaluate.forgetting import Ability
from tuneloop.flows import contestants, versions
from tuneloop.flows.recipe import Recipe, load_recipe
from tuneloop.flows.versions import BASE, Table
from tuneloop.pages.numbers import interval, number
from tuneloop.track import console

Json = dict[str, Any]


def chain(names: Sequence[str], root: Path, probes: str | None, limit: int | None, again: bool = False) -> Run:
    """Asks the base of the first run and then each run, in their order, what all of them were tuned for and the probes.

    The result is a run of its own (forgetting.json, forgetting.html), found again for the same runs and files.
    """
    root = root.resolve()
    tuned = [resolve(root, name, stage="tune", done=True) for name in names]
    for one in tuned:
        check_tuned(one, "forgetting")
    if len({one.path.resolve() for one in tuned}) < len(tuned):
        raise RunError("a run is named twice; name each version once, in the order in which they were made")
    recipes = [load_recipe(one.path / "recipe.yaml") for one in tuned]
    config = probes_of(recipes[-1], probes, tuned[-1])
    with contextlib.chdir(tuned[-1].record["folder"]):
        asked = forgetting.load(config)
    inputs = {one.path.name: digest.of_value(one.record["outputs"]) for one in tuned}
    inputs |= {str(path): digest.of_file(path) for path in config.files}
    key = runs.run_key("forgetting", {"forgetting": config.model_dump(mode="json"), "limit": limit}, inputs)
    known = None if again else runs.find(root, key, done=True)
    if known is None:
        known = Run.create(root, "forgetting", recipes[-1].name, key, inputs, recipes[-1])
        with known, console.logging_to(known.path / "log.txt"):
            _measure(known, tuned, recipes, asked, limit, again)
    return known


def _measure(
    run: Run,
    tuned: Sequence[Run],
    recipes: Sequence[Recipe],
    asked: forgetting.Probes,
    limit: int | None,
    again: bool,
) -> None:
    names = [f"v{number}" for number in range(1, len(tuned) + 1)]
    tasks = [_task(name, one, recipe, limit) for name, one, recipe in zip(names, tuned, recipes, strict=True)]
    probes, last = forgetting.Probes([*asked.abilities, *tasks], asked.neutral), recipes[-1].evaluate
    table = Table(probes, last.confidence, remember=last.cache and not again)
    with contextlib.chdir(tuned[0].record["folder"]):
        base = recipes[0].model
        with contestants.entrant(base, recipes[0].seed)() as contestant:
            table.add(BASE, contestant, run=None)
    for name, one, recipe in zip(names, tuned, recipes, strict=True):
        model = contestants.tuned_config(recipe.model, one.path.resolve())
        with contextlib.chdir(one.record["folder"]), contestants.entrant(model, recipe.seed)() as contestant:
            table.add(name, contestant, run=str(one.path))
    transfer = backward_transfer(table, [(ability.name, name) for ability, name in zip(tasks, names, strict=True)])
    rows = [one.to_json() for one in table.versions]
    jsonl.write(run.out / "forgetting.json", {"version": 1, "rows": rows, "backward_transfer": transfer})
    marks = {name: one.path.name for name, one in zip(names, tuned, strict=True)}
    title, lead = f"{run.record['name']}: {len(tuned)} versions", "What the base could do, and what each was tuned for."
    page = versions.to_html(title, lead, table.versions, marks, transfer=in_words(transfer))
    jsonl.write_text(run.out / "forgetting.html", page)


def _task(name: str, tuned: Run, recipe: Recipe, limit: int | None) -> Ability:
    """The test rows of one version, as an ability of all."""
    limited = recipe.evaluate.model_copy(update={"limit": limit or recipe.evaluate.limit})
    with contextlib.chdir(tuned.record["folder"]):
        prepared = Run.open(Path(tuned.record["data"]))
        return versions.task_of(f"task of {name}", recipe.model_copy(update={"evaluate": limited}), prepared, "test")


def backward_transfer(table: Table, learnt: Sequence[tuple[str, str]]) -> Json:
    """How tasks fared after they were learnt: R[last, j] - R[j, j] of each, and their mean (Lopez-Paz and Ranzato 2017,
    arXiv 1706.08840, equation 3). Negative is forgetting.

    `learnt`: (ability, the version that learnt it), in order. The interval of the mean comes from those of the paired
    differences (MOVER, Zou and Donner 2008), as tasks have other rows each. Tasks whose metric is better when lower do
    not enter.
    """
    last = table.versions[-1].name
    named = {ability.name: ability for ability in table.probes.abilities}
    parts: dict[str, Json] = {}
    for ability, version in learnt[:-1]:
        found = table.against(named[ability], version, last)
        if found["better"] == "higher" and found["difference"]["value"] is not None:
            parts[ability] = found["difference"]
    if not parts:
        return {"value": None, "n": 0, "low": None, "high": None, "abilities": {}}
    n, changes = len(parts), list(parts.values())
    value = sum(one["value"] for one in changes) / n
    down = math.sqrt(sum((one["value"] - one["low"]) ** 2 for one in changes)) / n
    up = math.sqrt(sum((one["high"] - one["value"]) ** 2 for one in changes)) / n
    return {"value": value, "n": n, "low": value - down, "high": value + up, "abilities": parts}


def in_words(transfer: Json) -> str:
    """The mean backward transfer as a sentence; empty where there is none."""
    if transfer["value"] is None:
        return ""
    ends = interval(transfer, True).replace(" … ", " to ")
    tasks = "earlier task" if transfer["n"] == 1 else "earlier tasks"
    return f"backward transfer {number(transfer['value'], True)} ({ends}): mean change of {transfer['n']} {tasks}"


def show(run: Run) -> Json:
    """The table in the terminal, and what `--json` prints."""
    value = jsonl.read(run.out / "forgetting.json")
    found = [versions.Version(row["name"], row["abilities"], row["kl"], {"run": row["run"]}) for row in value["rows"]]
    marks = {one.name: Path(one.facts["run"]).name for one in found if one.facts["run"]}
    console.say(versions.to_rich("version × ability", found, marks))
    for line in filter(None, [in_words(value["backward_transfer"])]):
        console.say(line)
    console.decided("page", str(run.out / "forgetting.html"))
    return {"run": str(run.path), "page": str(run.out / "forgetting.html"), **value}


def check_tuned(run: Run, command: str) -> None:
    """Raises RunError for anything but a finished tune run whose data is known."""
    if run.stage != "tune" or not run.done:
        raise RunError(f"{run.path} is a {run.stage} run ({run.status}); {command} takes finished tune runs")
    if not Path(run.record["folder"], run.record.get("data", "")).joinpath("run.json").is_file():
        raise RunError(f"{run.path}: its prepared data ({run.record.get('data')}) is gone; run its recipe again")


def probes_of(recipe: Recipe, probes: str | None, run: Run) -> ForgettingConfig:
    """What is asked beside the tasks: as said, as in the recipe, or the facts of the embedded base."""
    if probes is not None:
        return ForgettingConfig(probes=probes if probes == "embedded" else str(Path(probes).resolve()))
    if recipe.evaluate.forgetting is not None:
        return recipe.evaluate.forgetting
    if recipe.model.base == "embedded":
        return ForgettingConfig()
    raise RunError(
        f"{run.path}: its recipe has no evaluate.forgetting, so nobody knows what the base must not forget; give "
        "--probes FILE (.jsonl of questions and answers, or .txt)"
    )
