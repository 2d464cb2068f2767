"""`tuneloop preview`: the tokens of real rows, coloured by loss weight."""

from pathlib import Path
from typing import Annotated

import typer

from tuneloop.cli.options import AsJson, RecipeArgument, Settings, emit

Count = Annotated[int, typer.Option("-n", "--rows", min=1, help="How many training rows to show.")]
Html = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Also write the view as a web page.")]


def command(
    recipe: RecipeArgument, count: Count = 3, html: Html = None, settings: Settings = [], as_json: AsJson = False
) -> None:
    """Show what is trained: each token of the first rows with its loss weight. A tokenizer is enough, no weights.

    Examples:

      tuneloop preview recipe.yaml -n 3

      tuneloop preview recipe.yaml --html preview.html
    """
    from tuneloop.flows.inspect import preview
    from tuneloop.flows.recipe import load_recipe

    emit(preview(load_recipe(recipe, settings), count, html), as_json)
