"""`tuneloop check`: everything that can be known before a run starts."""

from tuneloop.cli.options import AsJson, RecipeArgument, Settings, emit


def command(recipe: RecipeArgument, settings: Settings = [], as_json: AsJson = False) -> None:
    """Validate recipe, data and model; show one masked row, rows per source, tokens, memory and time. Starts nothing.

    Example:

      tuneloop check recipe.yaml
    """
    from tuneloop.flows.inspect import check
    from tuneloop.flows.recipe import load_recipe

    emit(check(load_recipe(recipe, settings)), as_json)
