"""`tuneloop sweep`: many tunings and their comparison."""

from pathlib import Path
from typing import Annotated

import typer

from tuneloop.cli.options import RUNS, AsJson, RunsFolder, Settings, emit

Recipes = Annotated[list[Path], typer.Argument(metavar="RECIPE…", help="One or more recipes.", show_default=False)]
Grid = Annotated[
    list[str],
    typer.Option("--grid", metavar="KEY=A,B,…", help="Values to try of a key; several keys: all combinations."),
]
Search = Annotated[int, typer.Option("--search", metavar="N", min=0, help="Search with N tunings instead (Optuna).")]
By = Annotated[str, typer.Option("--by", metavar="NAME", help="Judge by this on validation rows: loss, or a metric.")]
Name = Annotated[str, typer.Option("--name", help="Names the sweep's folder and page.")]


def command(
    recipes: Recipes,
    grid: Grid = [],
    search: Search = 0,
    by: By = "loss",
    settings: Settings = [],
    name: Name = "sweep",
    runs: RunsFolder = RUNS,
    as_json: AsJson = False,
) -> None:
    """Run a recipe with all combinations of a grid, or several recipes, and compare what came of them.

    Interrupted, it goes on when started again: what is done is not done twice. A search needs ranges, and judges on
    validation rows; only the best then meets the test rows.

    Examples:

      tuneloop sweep recipe.yaml --grid tune.learning_rate=1e-4,3e-4,1e-3 --grid tune.method.lora.rank=8,32

      tuneloop sweep examples/methods/*.yaml --name methods

      tuneloop sweep recipe.yaml --search 20 --grid tune.learning_rate=1e-5..1e-2 --grid tune.batch_size=8,16,32
    """
    from tuneloop.flows.sweep import Plan, parse_grid, sweep

    plan = Plan(recipes=[str(path) for path in recipes], grid=parse_grid(grid), settings=settings, search=search, by=by)
    emit(sweep(plan, name, runs), as_json)
