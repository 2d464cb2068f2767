"""The families of plug-ins, for people and programs."""

from __future__ import annotations

import json
from typing import Any

from pydantic_core import PydanticUndefined
from rich.text import Text

from tuneloop.core import docstrings
from tuneloop.core.errors import RecipeError
from tuneloop.core.plugins import Family, did_you_mean
from tuneloop.track import console


def families() -> dict[str, Family[Any]]:
    """All families by name."""
    from tuneloop.data.formats import FORMATS
    from tuneloop.data.steps import STEPS
    from tuneloop.evaluate.metrics import METRICS
    from tuneloop.guard.rules import RULES
    from tuneloop.track.trackers import TRACKERS
    from tuneloop.tune.methods import FAMILY as METHODS
    from tuneloop.tune.optimizers import FAMILY as OPTIMIZERS
    from tuneloop.tune.schedules import FAMILY as SCHEDULES

    return {
        family.name: family for family in (FORMATS, STEPS, RULES, METHODS, OPTIMIZERS, SCHEDULES, METRICS, TRACKERS)
    }


def list_family(name: str) -> dict[str, Any]:
    """The plug-ins of one family (or of all) with their options."""
    known = families()
    if name and name not in known:
        raise RecipeError(f"no family '{name}'{did_you_mean(name, known)}; families: {', '.join(known)}")
    chosen = {name: known[name]} if name else known
    result = {title: [_describe(family, plugin) for plugin in family.names()] for title, family in chosen.items()}
    for title, plugins in result.items():
        console.say(Text(title, "bold"))
        for plugin in plugins:
            console.say(Text.assemble("  ", (f"{plugin['name']:<20}", "cyan"), plugin["about"]))
            if name and plugin["more"]:
                console.say(Text(f"      {plugin['more']}"))
            for option in plugin["options"] if name else []:
                about = f"      {option['name']:<20}{' '.join(option['about'].split())} "
                given = "required" if option["required"] else f"default: {json.dumps(option['default'])}"
                console.say(Text.assemble(about, (f"({given})", "dim")))
    return result


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of recipes."""
    from tuneloop.flows.recipe import Recipe

    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()}


def _describe(family: Family[Any], name: str) -> dict[str, Any]:
    plugin = family.load(name)
    about = docstrings.of_fields(plugin)
    options = [
        {
            "name": key,
            "about": about.get(key, ""),
            "required": field.is_required(),
            "default": None if field.default is PydanticUndefined else field.get_default(call_default_factory=True),
        }
        for key, field in plugin.model_fields.items()
    ]
    first, *more = (" ".join(part.split()) for part in (plugin.__doc__ or "").strip().split("\n\n"))
    return {"name": name, "about": first, "more": " ".join(more), "options": options}
