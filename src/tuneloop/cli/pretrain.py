"""`tuneloop pretrain`: continued or new pre-training on plain text."""

from tuneloop.cli.options import RUNS, Again, AsJson, RecipeArgument, RunsFolder, Settings, emit


def command(
    recipe: RecipeArgument,
    settings: Settings = [],
    runs: RunsFolder = RUNS,
    again: Again = False,
    as_json: AsJson = False,
) -> None:
    """Train on documents, every token weighted, with the same loop as `tune`; the method is `full` unless named.

    With model.base it continues the pre-training of that model, with model.architecture it starts a new one.

    Example:

      tuneloop pretrain seedling/recipe.yaml
    """
    from tuneloop.flows.pretrain import pretrain

    run = pretrain(recipe, settings, runs, again)
    emit({"run": str(run.path), "model": str(run.out / "model")}, as_json)
