"""`tuneloop schema`: the JSON Schema of recipes."""

import json

from tuneloop.cli.options import AsJson, emit


def command(as_json: AsJson = False) -> None:
    """Print the JSON Schema of recipes, for completion and checks in editors.

    Example:

      tuneloop schema > recipe.schema.json
    """
    from tuneloop.flows.reference import schema

    found = schema()
    if as_json:
        emit(found, as_json)
    else:
        print(json.dumps(found, indent=2, ensure_ascii=False))
