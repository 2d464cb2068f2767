"""What to do about forgetting: scales of what was tuned are tried, other remedies written as recipes or run, and the
choice follows from the numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tuneloop.core import digest, jsonl, runs
from tuneloop.core import recipe as loading
from tuneloop.core.errors import RunError, Unscalable
from tuneloop.core.runs import Run, resolve
from tuneloop.evaluate import forgetting
from tuneloop.flows import contestants, lifecycle, recipes_against_forgetting, scaled, versions
from tuneloop.flows.advice import Advice, Gate, advise
from tuneloop.flows.forgetting import check_tuned, probes_of
from tuneloop.flows.recipe import Recipe, load_recipe
from tuneloop.flows.versions import BASE, Table, Version
from tuneloop.track import console, metrics

Json = dict[str, Any]
TUNED = "tuned"


@dataclass(frozen=True)
class Wanted:
    """What a user asked for."""

    scales: tuple[float, ...] = (0.8, 0.6, 0.4)
    gate: float = 0.02
    """The most that any ability may drop: a share of right answers, or of the bits per byte."""
    probes: str | None = None
    general: str | None = None
    """A file of general rows, to replay or to keep to."""
    apply: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()


def remedy(name: str, root: Path, wanted: Wanted) -> Run:
    """Measures a finished tune run at several scales, tries what is to be applied, and says what to do.

    Interrupted, it goes on: what was measured is kept (`evaluate.kept`), and so are tunings.
    Writes a run of stage `remedy`: remedy.json, remedy.html and a recipe for each other remedy.
    """
    root = root.resolve()
    tuned = resolve(root, name, stage="tune", done=True)
    check_tuned(tuned, "remedy")
    unknown = sorted(set(wanted.apply) - {"scale", *recipes_against_forgetting.NAMES})
    if unknown:
        known = ", ".join(["scale", *recipes_against_forgetting.NAMES])
        raise RunError(f"--apply {unknown[0]}: remedies are {known}")
    odd = [scale for scale in wanted.scales if not 0 < scale < 1]
    if odd:
        raise RunError(f"--scales {odd[0]:g}: between 0 (the base) and 1 (as tuned); both are measured anyway")
    general = str(Path(wanted.general).resolve()) if wanted.general else None
    if general and not Path(general).is_file():
        raise RunError(f"--general {wanted.general}: no such file")
    config = probes_of(load_recipe(tuned.path / "recipe.yaml", wanted.settings), wanted.probes, tuned)
    with contextlib.chdir(tuned.record["folder"]):
        recipe = load_recipe(tuned.path / "recipe.yaml", wanted.settings)
        asked = forgetting.load(config)
        inputs = {"tuned": digest.of_value(tuned.record["outputs"])}
        key = runs.run_key("remedy", {"wanted": asdict(wanted), "recipe": recipe.model_dump(mode="json")}, inputs)
        run = runs.find(root, key, done=False) or Run.create(root, "remedy", recipe.name, key, inputs, recipe)
        with run, console.logging_to(run.path / "log.txt"):
            _work(run, root, tuned, recipe, asked, wanted, general)
    return run


def _work(
    run: Run, root: Path, tuned: Run, recipe: Recipe, asked: forgetting.Probes, wanted: Wanted, general: str | None
) -> None:
    prepared = Run.open(Path(tuned.record["data"]))
    task = versions.task_of("task", recipe, prepared, versions.split_for_choosing(prepared))
    table = Table(
        forgetting.Probes([task, *asked.abilities], asked.neutral),
        recipe.evaluate.confidence,
        remember=recipe.evaluate.cache,
    )
    gate = Gate(wanted.gate, "task")
    steps = metrics.read(tuned.path / "metrics.jsonl")
    curve = [(row["step"], row["val_loss"]) for row in steps if row.get("val_loss") is not None]
    others = recipes_against_forgetting.variants(recipe, general, curve)
    for name, variant in others.items():
        jsonl.write_text(run.out / f"{name}.yaml", loading.dump(variant.recipe))
    written = {name: (variant.says, run.out / f"{name}.yaml") for name, variant in others.items()}
    training = [name for name in wanted.apply if name != "scale"]
    _check_known(training, others, general)

    def so_far(made: Run | None = None) -> Advice:
        told = advise(table.versions, gate, tuned.path.name, written, general)
        _write(run, table.versions, gate, told, made)
        return told

    _scan(table, tuned, recipe, wanted.scales)
    told = so_far()  # training takes long, and what is measured must not be lost with it
    for name in training:
        job = lifecycle.Job(others[name].recipe, root)
        again = lifecycle.tune(job, lifecycle.prepare(job))
        model = contestants.tuned_config(recipe.model, again.path)
        with contestants.entrant(model, recipe.seed)() as contestant:
            table.add(name, contestant, remedy=name, run=str(again.path), says=others[name].says)
        told = so_far()
    if "scale" in wanted.apply and told.scale is not None:
        made = scaled.scaled_run(tuned, told.scale, root)
        console.decided("written", f"{made.path}: the tuned model at scale {told.scale:g}, a tune run like any other")
        so_far(made)


def _check_known(training: Sequence[str], others: Mapping[str, object], general: str | None) -> None:
    """Raises RunError for a remedy that cannot be applied."""
    for name in training:
        if name not in others and general is None:
            raise RunError(f"--apply {name} needs --general FILE: rows of the kind that must not be forgotten")
        if name not in others:
            raise RunError(f"--apply {name}: the run's recipe has it already; change it there and tune again")


def _scan(table: Table, tuned: Run, recipe: Recipe, scales: Sequence[float]) -> None:
    """Base, the tuned model and the scales between them, of one loaded model; without scales where it has none."""
    facts: Json = {"remedy": None, "run": str(tuned.path)}
    try:
        with scaled.opened(tuned, recipe) as at:
            table.add(BASE, at(0.0), scale=0.0)
            table.add(TUNED, at(1.0), scale=1.0, **facts)
            for scale in sorted(scales, reverse=True):
                table.add(f"scale {scale:g}", at(scale), remedy="scale", scale=scale)
    except Unscalable as error:
        console.decided("scales", str(error))
        for name, model in ((BASE, recipe.model), (TUNED, contestants.tuned_config(recipe.model, tuned.path))):
            with contestants.entrant(model, recipe.seed)() as contestant:
                table.add(name, contestant, **facts)


def _write(run: Run, found: Sequence[Version], gate: Gate, told: Advice, made: Run | None) -> None:
    rows = [{**one.to_json(), "worst": gate.worst(one), "passes": gate.passes(one)} for one in found]
    advice = [one.to_json() for one in told.steps]
    value = {
        "version": 1, "gate": {"most": gate.most}, "rows": rows, "choice": told.choice, "advice": advice,
        "made": str(made.path) if made else None,
    }  # fmt: skip
    jsonl.write(run.out / "remedy.json", value)
    page = versions.to_html(
        f"{run.record['name']}: remedies", f"Gate: no ability may drop by more than {gate.most:g} against the base.",
        found, marks(value), advice=advice,
    )  # fmt: skip
    jsonl.write_text(run.out / "remedy.html", page)


def marks(value: Json) -> dict[str, str]:
    """What stands at the end of each line: passes, the choice, or which ability fails."""
    out: dict[str, str] = {}
    for row in value["rows"]:
        if row["name"] != BASE:
            verdict = "passes" if row["passes"] else f"fails: {row['worst']['ability']}" if row["worst"] else ""
            out[row["name"]] = f"{verdict} ← chosen" if row["name"] == value["choice"] else verdict
    return out


def show(run: Run) -> Json:
    """The table and the advice in the terminal, and what `--json` prints."""
    value = jsonl.read(run.out / "remedy.json")
    found = [Version(row["name"], row["abilities"], row["kl"]) for row in value["rows"]]
    title = f"gate: no ability drops by more than {value['gate']['most']:g} against the base"
    console.say(versions.to_rich(title, found, marks(value)))
    for step in value["advice"]:
        console.say(f"{step['title']}: {step['why']}")
        for command in step["commands"]:
            console.say(f"  {command}")
    console.decided("page", str(run.out / "remedy.html"))
    return {"run": str(run.path), "page": str(run.out / "remedy.html"), **value}
