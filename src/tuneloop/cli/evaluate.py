"""`tuneloop evaluate`: base and tuned on the test rows."""

from typing import Annotated

import typer

from tuneloop.cli.options import RUNS, Again, AsJson, RecipeArgument, RunsFolder, Settings, emit

TuneRun = Annotated[
    str | None,
    typer.Option(
        "--tuned",
        metavar="RUN",
        help="Tune run to measure, by folder, part of its name, or latest; default: the finished one of this recipe.",
    ),
]

Tasks = Annotated[
    str | None,
    typer.Option(
        "--tasks",
        metavar="NAMES",
        help="Also ask tasks of lm-evaluation-harness, with commas: gsm8k,arc_easy; the same as evaluate.tasks.",
    ),
]


def command(
    recipe: RecipeArgument,
    tuned: TuneRun = None,
    tasks: Tasks = None,
    settings: Settings = [],
    runs: RunsFolder = RUNS,
    again: Again = False,
    as_json: AsJson = False,
) -> None:
    """Ask base and tuned model the test questions; every number comes with n and an interval.

    Examples:

      tuneloop evaluate recipe.yaml

      tuneloop evaluate recipe.yaml --tuned 7f3a --set evaluate.limit=200

      tuneloop evaluate recipe.yaml --tasks gsm8k,arc_easy

      tuneloop evaluate recipe.yaml --set evaluate.against.url=http://127.0.0.1:8000/v1 --set evaluate.against.model=big
    """
    from tuneloop.core.errors import RunError
    from tuneloop.core.runs import resolve
    from tuneloop.flows import lifecycle
    from tuneloop.flows.recipe import load_recipe

    asked = [f"evaluate.tasks=[{tasks}]"] if tasks else []
    job = lifecycle.Job(load_recipe(recipe, [*settings, *asked]), runs, again)
    prepared = lifecycle.prepare(job)
    chosen = resolve(runs, tuned, stage="tune", done=True) if tuned else lifecycle.finished_tuning(job, prepared)
    if chosen.stage != "tune" or not chosen.done:
        raise RunError(f"{chosen.path} is a {chosen.stage} run ({chosen.status}); --tuned takes a finished tune run")
    run = lifecycle.evaluate(job, prepared, chosen)
    lifecycle.show(run)
    emit({"run": str(run.path), "report": str(run.out / "report.html")}, as_json)
