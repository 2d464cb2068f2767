"""`tuneloop list`: the plug-ins of a family."""

from typing import Annotated

import typer

from tuneloop.cli.options import AsJson, emit

FamilyName = Annotated[str, typer.Argument(metavar="FAMILY", help="formats, steps, methods, metrics, …; empty: all.")]


def command(family: FamilyName = "", as_json: AsJson = False) -> None:
    """Show the plug-ins of a family with their options and defaults.

    Examples:

      tuneloop list methods

      tuneloop list
    """
    from tuneloop.flows.reference import list_family

    emit(list_family(family), as_json)
