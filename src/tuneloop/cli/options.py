"""Options that several commands share, and how results leave: one JSON object as the last line on stdout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup, TyperOption

RecipeArgument = Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe, a YAML file.", show_default=False)]
Settings = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override a key, e.g. --set tune.method.lora.rank=32.")
]
RunsFolder = Annotated[Path, typer.Option("--runs", metavar="FOLDER", help="Where run folders lie.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object (last line on stdout).")]
Again = Annotated[bool, typer.Option("--again", help="Run the stage anew even where a finished run fits.")]
RUNS = Path("runs")


class Group(TyperGroup):
    """A command with sub-commands."""

    def get_help_option(self, ctx: Any) -> TyperOption | None:
        option = super().get_help_option(ctx)
        if option is not None:
            option.default = False  # typer imports pydantic to turn an absent one into False: half of the start-up time
        return option


def emit(result: dict[str, Any], as_json: bool) -> None:
    """Prints the machine-readable result where it was asked for."""
    if as_json:
        print(json.dumps(result, ensure_ascii=False), flush=True)
