"""`tuneloop schema`: the JSON Schema of recipes."""

import json


def command() -> None:
    """Print the JSON Schema of recipes, for completion and checks in editors.

    Example:

      tuneloop schema > recipe.schema.json
    """
    from tuneloop.flows.recipe import Recipe

    print(json.dumps(Recipe.model_json_schema(), indent=2, ensure_ascii=False))
