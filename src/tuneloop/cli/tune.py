"""`tuneloop tune`: prepared rows and a base to an adapter or a model."""

from pathlib import Path
from typing import Annotated

import typer

from tuneloop.cli.options import RUNS, Again, AsJson, RunsFolder, Settings, emit

OptionalRecipe = Annotated[
    Path | None, typer.Argument(metavar="RECIPE", help="The recipe, a YAML file.", show_default=False)
]
Resume = Annotated[
    str | None,
    typer.Option("--resume", metavar="RUN", help="Continue this interrupted run: folder, part of its name, or latest."),
]


def command(
    recipe: OptionalRecipe = None,
    resume: Resume = None,
    settings: Settings = [],
    runs: RunsFolder = RUNS,
    again: Again = False,
    as_json: AsJson = False,
) -> None:
    """Tune the model; prepares the data first where that is not done yet.

    ^C finishes the step and saves; --resume goes on to the same result as if nothing had happened.

    Examples:

      tuneloop tune recipe.yaml

      tuneloop tune --resume latest
    """
    from tuneloop.core.errors import RecipeError
    from tuneloop.core.runs import resolve
    from tuneloop.flows import lifecycle
    from tuneloop.flows.recipe import load_recipe

    if (recipe is None) == (resume is None):
        raise RecipeError("give either a recipe or --resume RUN: tuneloop tune recipe.yaml")
    if resume is not None:
        if settings or again:
            raise RecipeError("--resume continues a run as it was recorded: leave --set and --again out")
        run = lifecycle.resume(resolve(runs, resume, stage="tune", done=False).path)
    else:
        assert recipe is not None
        job = lifecycle.Job(load_recipe(recipe, settings), runs, again)
        run = lifecycle.tune(job, lifecycle.prepare(job))
    emit({"run": str(run.path), "outputs": sorted(run.record["outputs"])}, as_json)
