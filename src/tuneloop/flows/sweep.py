"""Many tunings from one command: all combinations of a grid, several recipes, or a search; and their comparison.

Each variant runs in a process of its own: its memory is its own, and one that fails does not end the sweep. Stages that
are done are not done again, so an interrupted sweep goes on when it is started again.
"""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneloop.core import digest, jsonl, runs
from tuneloop.core.errors import MissingExtra, RecipeError, RunError
from tuneloop.core.plugins import Branch
from tuneloop.core.runs import Run
from tuneloop.flows import comparison, comparison_pages
from tuneloop.flows.comparison import Row
from tuneloop.flows.recipe import load_recipe
from tuneloop.track import console, metrics

LOG_LINES = 12  # of a failed variant's log that are shown
DECADES = 10.0  # a range over at least this factor is searched on a logarithmic scale


class Plan(Branch):
    """What a sweep runs; also its recipe.yaml."""

    recipes: list[str]
    """Recipe files."""
    grid: dict[str, list[str]]
    """Key of the recipe → values, or one range low..high, to be searched."""
    settings: list[str]
    """What holds for all variants."""
    search: int = 0
    """Tunings that a search may try; 0: all combinations of the grid."""
    by: str = "loss"
    """What a search judges by, measured on validation rows: loss, or a metric of evaluate.metrics."""


@dataclass(frozen=True)
class Variant:
    """One tuning: a recipe and what differs from it."""

    recipe: Path
    settings: tuple[str, ...]
    name: str


def parse_grid(options: Sequence[str]) -> dict[str, list[str]]:
    """`tune.learning_rate=1e-4,3e-4` → key and values; commas inside brackets do not separate."""
    grid: dict[str, list[str]] = {}
    for option in options:
        key, equals, text = option.partition("=")
        if not equals or not key.strip() or not text.strip():
            raise RecipeError(f"--grid {option}: write KEY=VALUE,VALUE,…, e.g. --grid tune.learning_rate=1e-4,3e-4")
        if key.strip() in grid:
            raise RecipeError(f"--grid {key.strip()} is given twice: write all its values into one")
        grid[key.strip()] = _split(text)
    return grid


def _split(text: str) -> list[str]:
    values, depth = [""], 0
    for letter in text:
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and depth == 0:
            values.append("")
        else:
            values[-1] += letter
    return [value.strip() for value in values]


def variants(plan: Plan) -> list[Variant]:
    """All combinations, in the order of the grid. Raises RecipeError when one of them is no valid recipe."""
    found: list[Variant] = []
    for recipe in map(Path, plan.recipes):
        for values in itertools.product(*plan.grid.values()):
            chosen = tuple(f"{key}={value}" for key, value in zip(plan.grid, values, strict=True))
            found.append(_variant(plan, recipe, chosen))
    return found


def _variant(plan: Plan, recipe: Path, chosen: Sequence[str]) -> Variant:
    settings = (*plan.settings, *chosen)
    load_recipe(recipe, settings)  # all mistakes are found before the first hour is spent
    parts = ([recipe.stem] if len(plan.recipes) > 1 or not chosen else []) + [_short(one) for one in chosen]
    return Variant(recipe, settings, " ".join(parts))


def _short(setting: str) -> str:
    """`tune.method.lora.rank=8` → `rank=8`; the value of a choice speaks for itself."""
    key, _, value = setting.partition("=")
    last = key.rpartition(".")[2]
    return value if last in ("method", "optimizer", "schedule") else f"{last}={value}"


def sweep(plan: Plan, name: str, root: Path) -> dict[str, Any]:
    """Runs the whole plan; returns the sweep's folder and its rows, the best by validation first in `best`."""
    _lower_is_better(plan.by)  # refused before the first hour, not at the end
    key = runs.run_key(
        "sweep", plan.model_dump(mode="json"), {path: digest.of_file(Path(path)) for path in plan.recipes}
    )
    run = runs.find(root, key, done=False) or Run.create(root, "sweep", name, key, {}, plan)
    with run, console.logging_to(run.path / "log.txt"):
        console.decided("sweep", str(run.path))
        rows = _search(plan, run, root) if plan.search else _grid(plan, run, root)
        _write(run, rows, name)
    console.say(comparison_pages.to_rich(rows, name))
    console.decided("page", str(run.out / "sweep.html"))
    best = _best(rows, plan.by)
    if best:
        console.decided("best", f"{best.name}, by validation {plan.by}")
    return {"run": str(run.path), "rows": [row.to_json() for row in rows], "best": best.name if best else None}


def _grid(plan: Plan, run: Run, root: Path) -> list[Row]:
    todo = variants(plan)
    rows: list[Row] = []
    with console.progress("sweep", len(todo)) as bar:
        for number, variant in enumerate(todo, 1):
            console.decided(f"{number}/{len(todo)}", variant.name)
            rows.append(_run(variant, run, root, "run"))
            _write(run, rows, "so far")
            bar.advance(note=variant.name)
    return rows


def _search(plan: Plan, run: Run, root: Path) -> list[Row]:
    """Tree-structured Parzen estimator (Bergstra et al. 2011) by Optuna, judged on validation rows alone."""
    try:
        import optuna
    except ImportError as error:
        raise MissingExtra("optuna", "--search", "optuna") from error
    if len(plan.recipes) != 1:
        raise RecipeError("--search takes one recipe")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    recipe = Path(plan.recipes[0])
    seed = load_recipe(recipe, plan.settings).seed
    space = {key: _distribution(key, values) for key, values in plan.grid.items()}
    study = optuna.create_study(
        storage=f"sqlite:///{run.out / 'search.db'}", study_name="sweep", load_if_exists=True,
        direction="minimize" if _lower_is_better(plan.by) else "maximize",
        sampler=optuna.samplers.TPESampler(seed=seed),
    )  # fmt: skip
    done = [trial for trial in study.trials if trial.state.is_finished()]
    rows = [Row.from_json(trial.user_attrs["row"]) for trial in done]
    with console.progress("search", plan.search, completed=len(done)) as bar:
        while len(rows) < plan.search:
            trial = study.ask(space)
            variant = _variant(plan, recipe, [f"{key}={_text(value)}" for key, value in trial.params.items()])
            console.decided(f"{len(rows) + 1}/{plan.search}", variant.name)
            row = _run(variant, run, root, "tune")
            trial.set_user_attr("row", row.to_json())
            value = judged(row, plan.by)
            if row.error is None and value is None:
                raise RunError(
                    f"{row.runs['tune']} has no validation {plan.by}: give data.val, and for a metric of generated "
                    "answers tune.validation.generate"
                )
            study.tell(trial, value, state=optuna.trial.TrialState.FAIL if value is None else None)
            rows.append(row)
            bar.advance(note=variant.name)
    best = _best(rows, plan.by)
    if best is not None:  # only the chosen one meets the test rows
        settings = tuple(jsonl.read(run.out / "variants.json")[best.name])
        rows[rows.index(best)] = _run(Variant(recipe, settings, best.name), run, root, "run")
    return rows


def _distribution(key: str, values: Sequence[str]) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    low, dots, high = values[0].partition("..")
    if len(values) > 1 or not dots:
        return CategoricalDistribution(tuple(values))
    try:
        if low.strip("+-").isdigit() and high.strip("+-").isdigit():
            return IntDistribution(int(low), int(high))
        ends = float(low), float(high)
        return FloatDistribution(*ends, log=ends[0] > 0 and ends[1] / ends[0] >= DECADES)
    except ValueError as error:
        raise RecipeError(f"--grid {key}={values[0]}: a range is low..high, two numbers ({error})") from error


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _run(variant: Variant, run: Run, root: Path, command: str) -> Row:
    """Runs the variant with `tuneloop run` (or `tune`) in another process and reads what came of it."""
    logs = run.out / "logs"
    logs.mkdir(exist_ok=True)
    known = run.out / "variants.json"
    jsonl.write(known, (jsonl.read(known) if known.is_file() else {}) | {variant.name: list(variant.settings)})
    log = logs / f"{digest.short(digest.of_value([str(variant.recipe), *variant.settings]))}.txt"
    settings = [part for one in variant.settings for part in ("--set", one)]
    typed = [sys.executable, "-m", "tuneloop.cli.main", command, str(variant.recipe), *settings, "--runs", str(root)]
    with log.open("w", encoding="utf-8") as errors:
        done = subprocess.run([*typed, "--json"], stdout=subprocess.PIPE, stderr=errors, text=True, check=False)
    if done.returncode == 130:
        raise KeyboardInterrupt
    if done.returncode != 0:
        told = log.read_text("utf-8").strip().splitlines()[-LOG_LINES:]
        console.say(f"[red]failed[/] (exit {done.returncode}); the whole log: {log}")
        said = next((line for line in told if line.startswith("error: ")), told[-1] if told else "no output")
        return Row(variant.name, error=said.removeprefix("error: "))
    result = json.loads(done.stdout.splitlines()[-1])
    if command == "tune":
        return comparison.row_of(variant.name, Path(result["run"]))
    return comparison.row_of(variant.name, Path(result["runs"]["tune"]), Path(result["runs"]["evaluate"]))


def judged(row: Row, by: str) -> float | None:
    """The best value of what variants are judged by, on validation rows; None where it was not measured."""
    if row.error is not None:
        return None
    lines = metrics.read(Path(row.runs["tune"]) / "metrics.jsonl")
    values = [line[f"val_{by}"] for line in lines if line.get(f"val_{by}") is not None]
    values = [value for value in values if math.isfinite(value)]
    return (min if _lower_is_better(by) else max)(values, default=None)


def _lower_is_better(by: str) -> bool:
    from tuneloop.evaluate.metrics import METRICS

    if by == "loss":
        return True
    try:
        better = METRICS.load(by).BETTER
    except KeyError as error:
        raise RecipeError(f"--by {by}: {error.args[0]}, or loss") from None
    if better == "neither":
        raise RecipeError(
            f"--by {by}: of {by} neither more nor less is better, so no variant is the best by it; take loss, or a "
            "metric that has a better end, such as exact_match (`tuneloop list metrics`)"
        )
    return better == "lower"


def _best(rows: Sequence[Row], by: str) -> Row | None:
    values = [(value, row) for row in rows if (value := judged(row, by)) is not None]
    if not values:
        return None
    return (min if _lower_is_better(by) else max)(values, key=lambda pair: pair[0])[1]


def _write(run: Run, rows: Sequence[Row], title: str) -> None:
    jsonl.write(run.out / "sweep.json", {"version": 1, "rows": [row.to_json() for row in rows]})
    jsonl.write_text(run.out / "sweep.md", comparison_pages.to_markdown(rows, title))
    jsonl.write_text(run.out / "sweep.html", comparison_pages.to_html(rows, title))
