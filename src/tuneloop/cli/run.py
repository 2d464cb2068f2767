"""`tuneloop run`: the whole job."""

from tuneloop.cli.options import RUNS, Again, AsJson, RecipeArgument, RunsFolder, Settings, emit


def command(
    recipe: RecipeArgument,
    settings: Settings = [],
    runs: RunsFolder = RUNS,
    again: Again = False,
    as_json: AsJson = False,
) -> None:
    """Prepare, tune, evaluate and report: from raw files to a tuned model with its numbers.

    Stages that are finished for the same recipe and the same files are not run again; an interrupted tuning goes on
    where it stopped, to the same result as if it had not been interrupted.

    Examples:

      tuneloop run recipe.yaml

      tuneloop run recipe.yaml --set seed=7 --set tune.method.lora.rank=32
    """
    from tuneloop.flows import lifecycle
    from tuneloop.flows.recipe import load_recipe

    result = lifecycle.run(lifecycle.Job(load_recipe(recipe, settings), runs, again))
    emit(result, as_json)
