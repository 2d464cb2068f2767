"""`tuneloop prepare`: raw files to train, val and test rows."""

from typing import Annotated, Literal

import typer

from tuneloop.cli.options import RUNS, Again, AsJson, RecipeArgument, RunsFolder, Settings, emit

Executor = Annotated[
    Literal["auto", "here", "processes", "ray"],
    typer.Option("--executor", help="Where shards are worked on; auto: processes where there are many rows."),
]


def command(
    recipe: RecipeArgument,
    settings: Settings = [],
    runs: RunsFolder = RUNS,
    again: Again = False,
    executor: Executor = "auto",
    as_json: AsJson = False,
) -> None:
    """Read, clean and split the data; every row that is dropped is listed with its reason.

    Example:

      tuneloop prepare recipe.yaml
    """
    from tuneloop.core import jsonl
    from tuneloop.flows import lifecycle
    from tuneloop.flows.recipe import load_recipe

    run = lifecycle.prepare(lifecycle.Job(load_recipe(recipe, settings), runs, again), executor)
    emit({"run": str(run.path), "card": jsonl.read(run.out / "card.json")}, as_json)
