"""The main job, top to bottom: prepare → tune → evaluate.

Stages meet through run folders; finished ones are not done again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.text import Text

from tuneloop.core import digest, jsonl, runs
from tuneloop.core import recipe as loading
from tuneloop.core.errors import DataError, RunError
from tuneloop.core.runs import Run
from tuneloop.data.workers import Executor
from tuneloop.evaluate.report import Context, read
from tuneloop.evaluate.table import to_rich
from tuneloop.flows import contestants, forecast
from tuneloop.flows.prompts import load_prompts, prompt_files
from tuneloop.flows.recipe import Recipe, load_recipe
from tuneloop.track import console, metrics


@dataclass(frozen=True)
class Job:
    """A recipe at work in a folder of runs; `again` runs stages anew even where a finished run fits."""

    recipe: Recipe
    root: Path
    again: bool = False


def run(job: Job) -> dict[str, Any]:
    """The whole job; returns the run folders and the report's path."""
    prepared = prepare(job)
    tuned = tune(job, prepared)
    evaluated = evaluate(job, prepared, tuned)
    show(evaluated)
    return result(prepared, tuned, evaluated)


def show(evaluated: Run) -> None:
    """The table of an evaluation and where its pages lie."""
    console.say(to_rich(read(evaluated.out)))
    console.decided("report", str(evaluated.out / "report.html"))


def result(prepared: Run, tuned: Run, evaluated: Run) -> dict[str, Any]:
    """What `--json` prints for the whole job."""
    return {
        "runs": {"prepare": str(prepared.path), "tune": str(tuned.path), "evaluate": str(evaluated.path)},
        "report": str(evaluated.out / "report.html"),
    }


def prepare(job: Job, executor: Executor = "auto") -> Run:
    """Raw files → train, val and test rows. `executor` does the work, and changes nothing in the result."""
    from tuneloop.data.prepare import prepare as stage
    from tuneloop.data.prepare import source_files

    recipe = job.recipe
    inputs = {str(path): digest.of_file(path) for path in source_files(recipe.data)}
    config = {
        "data": recipe.data.model_dump(mode="json", exclude={"waive"}),
        "seed": recipe.seed,
        "tokens": {"model": recipe.model.model_dump(mode="json"), "max_length": recipe.tune.max_length},  # the forecast
    }

    def work(run: Run) -> None:
        stage(recipe.data, seed=recipe.seed, run=run, measure=partial(forecast.measure, recipe), executor=executor)

    return _once(job, "prepare", config, inputs, work)


def tune(job: Job, prepared: Run) -> Run:
    """Train and validation rows and a base → an adapter or a model. An interrupted run of the same job is continued."""
    _refuse_errors(job.recipe, prepared)
    config, inputs = _tuning(job, prepared)
    return _once(job, "tune", config, inputs, lambda run: _tune(job.recipe, prepared, run), data=prepared)


def _refuse_errors(recipe: Recipe, prepared: Run) -> None:
    """Raises DataError when the card of the data has an ERROR that the recipe does not waive."""
    findings = jsonl.read(prepared.out / "card.json")["findings"]
    errors = [found for found in findings if found["level"] == "ERROR"]
    waived = recipe.data.waive
    open_ones = [found for found in errors if found["code"] not in waived]
    if open_ones:
        listed = "".join(
            f"\n  {found['code']}: {'; '.join(filter(None, [found['message'], found.get('next')]))}"
            for found in open_ones
        )
        raise DataError(
            f"the data has {len(open_ones)} error(s) that would spoil the training:{listed}\n"
            f"Look at {prepared.out / 'card.html'} and mend the data or its steps; or, where it is meant to be so, "
            f"write the reason into the recipe: data: {{waive: {{{open_ones[0]['code']}: <why>}}}}"
        )
    for found in errors:
        console.decided("waived", f"{found['code']} ({found['message']}): {waived[found['code']]}")
    for code in sorted(waived.keys() - {found["code"] for found in errors}):
        console.decided("waive", f"{code}: the data has no ERROR of this name, so nothing is waived")


def finished_tuning(job: Job, prepared: Run) -> Run:
    """The finished tune run of this recipe and data. Raises RunError with the command that makes it."""
    found = runs.find(job.root, runs.run_key("tune", *_tuning(job, prepared)), done=True)
    if found is None:
        raise RunError(f"no finished tune run of this recipe in {job.root}/; first: tuneloop tune RECIPE")
    return found


def _tuning(job: Job, prepared: Run) -> tuple[dict[str, Any], dict[str, str]]:
    """What makes a tune run this tune run: its branches of the recipe, and the digests of all that it reads."""
    from tuneloop.forward import mixing
    from tuneloop.models.config import ModelConfig
    from tuneloop.models.find import find_base

    mix = prepared.out / mixing.FILE
    files = [*(prepared.out / name for name in ("train.jsonl", "val.jsonl")), *([mix] if mix.is_file() else [])]
    inputs = {path.name: digest.of_file(path) for path in files} | {"base": find_base(job.recipe.model).digest}
    keep, distill = job.recipe.tune.objective.keep, job.recipe.tune.objective.distill
    if keep:
        inputs |= {str(path): digest.of_file(path) for path in prompt_files(keep.prompts)}
    if distill:
        inputs["teacher"] = find_base(ModelConfig(base=distill.teacher, adapter=distill.adapter)).digest
    config = {branch: getattr(job.recipe, branch).model_dump(mode="json") for branch in ("tune", "model")}
    return {**config, "seed": job.recipe.seed, "waive": job.recipe.data.waive}, inputs


def resume(path: Path) -> Run:
    """Continues an interrupted tune run to the result that it would have had uninterrupted."""
    run = Run.open(path.resolve())
    if run.stage != "tune":
        raise RunError(f"{path}: a '{run.stage}' run; only tune runs are resumed. Other stages are simply run again.")
    if run.done:
        console.say(Text(f"{path} is finished; nothing to resume"))
        return run
    with contextlib.chdir(run.record["folder"]):  # paths in recipe and record are relative to where the run began
        recipe = load_recipe(run.path / "recipe.yaml")
        prepared = Run.open(Path(run.record["data"]))
        _hold(run, lambda run: _tune(recipe, prepared, run))
    return run


def evaluate(job: Job, prepared: Run, tuned: Run) -> Run:
    """Test rows → answers of base and tuned, scores with intervals, the report."""
    from tuneloop.models.find import find_base

    recipe = job.recipe
    rows = prepared.out / f"{recipe.evaluate.split}.jsonl"
    inputs = {
        rows.name: digest.of_file(rows),
        "base": find_base(recipe.model).digest,
        "tuned": digest.of_value(tuned.record["outputs"]),
    }
    if recipe.evaluate.forgetting is not None:
        inputs |= {str(path): digest.of_file(path) for path in recipe.evaluate.forgetting.files}
    if recipe.evaluate.memorisation:
        inputs["train.jsonl"] = digest.of_file(prepared.out / "train.jsonl")
    config = {branch: getattr(recipe, branch).model_dump(mode="json") for branch in ("evaluate", "model")}
    return _once(job, "evaluate", config, inputs, lambda run: _evaluate(recipe, prepared, tuned, rows, run))


def _tune(recipe: Recipe, prepared: Run, run: Run) -> None:
    from tuneloop.core.example_file import ExampleFile
    from tuneloop.forward import mixing
    from tuneloop.track.metrics import Tracking
    from tuneloop.tune.train import tune as stage

    recipe.track.check()
    keep = recipe.tune.objective.keep
    stage(
        recipe.tune,
        recipe.model,
        ExampleFile(prepared.out / "train.jsonl"),
        ExampleFile(prepared.out / "val.jsonl"),
        seed=recipe.seed,
        run=run,
        scorer=contestants.scorer(recipe.evaluate, recipe.tune),
        mix=mixing.read(prepared.out),
        tracking=Tracking(recipe.track.to, recipe.track.project or recipe.name, recipe.model_dump(mode="json")),
        prompts=load_prompts(keep.prompts) if keep else (),
    )


def _evaluate(recipe: Recipe, prepared: Run, tuned: Run, rows: Path, run: Run) -> None:
    from tuneloop.core.example_file import ExampleFile
    from tuneloop.data.prepare import load_examples
    from tuneloop.evaluate.evaluate import evaluate as stage

    against, cached = recipe.evaluate.against, recipe.evaluate.cache
    entrants = {
        "base": contestants.served(against, cached=cached)
        if against
        else contestants.entrant(recipe.model, recipe.seed, cached=cached),
        "tuned": contestants.entrant(contestants.tuned_config(recipe.model, tuned.path), recipe.seed, cached=cached),
    }
    trained = ExampleFile(prepared.out / "train.jsonl") if recipe.evaluate.memorisation else ()
    stage(recipe.evaluate, load_examples(rows), entrants, run, context(recipe, prepared, tuned, run), trained)


def context(recipe: Recipe, prepared: Run, tuned: Run, run: Run) -> Context:
    """What the report's pages show beside the numbers: curves, data card, recipe, versions, what to type next."""
    return Context(
        title=recipe.name,
        curves=metrics.read(tuned.path / "metrics.jsonl"),
        watch=jsonl.read(tuned.out / "summary.json").get("watch", {}),
        answers=metrics.answers_of(tuned.path),
        card=jsonl.read(prepared.out / "card.json"),
        recipe=loading.dump(recipe),
        versions=tuned.record["versions"],
        run=str(run.path),
        commands=next_commands(run, tuned),
    )


def next_commands(evaluated: Run, tuned: Run) -> list[str]:
    """What a user may want to type now."""
    return [
        f"tuneloop chat {tuned.path}",
        f"tuneloop preview {tuned.path / 'recipe.yaml'} -n 3",
        f"tuneloop report {evaluated.path}",
    ]


def _once(
    job: Job, stage: str, config: Mapping[str, Any], inputs: Mapping[str, str], work: Any, data: Run | None = None
) -> Run:
    """The finished run of this very work if there is one, else its interrupted run continued, else a new one."""
    key = runs.run_key(stage, config, inputs)
    if not job.again:
        done = runs.find(job.root, key, done=True)
        if done:
            console.say(Text(f"{stage}: already done in {done.path} (--again runs it anew)", "dim"))
            return done
    open_run = None if job.again or stage != "tune" else runs.find(job.root, key, done=False)
    if open_run:
        console.say(Text(f"{stage}: continuing {open_run.path}"))
    run = open_run or Run.create(job.root, stage, job.recipe.name, key, inputs, job.recipe)
    if data is not None:
        run.record["data"] = str(data.path)
    _hold(run, work)
    return run


def _hold(run: Run, work: Any) -> None:
    """Runs the work inside the run folder: locked, logged, its end stated."""
    with run, console.logging_to(run.path / "log.txt"):
        console.say(Text.assemble((f"── {run.stage} ", "bold cyan"), (str(run.path), "dim")))
        try:
            work(run)
        except KeyboardInterrupt:
            if run.stage == "tune":
                console.say(Text(f"stopped; continue with: tuneloop tune --resume {run.path}"))
            raise
