"""`tuneloop bases`: known base models."""

from typing import Annotated

import typer

from tuneloop.cli.options import AsJson, Group, emit

ABOUT = """List known base models and fetch them.

Examples:

  tuneloop bases

  tuneloop bases get smollm2-135m-instruct
"""
app = typer.Typer(cls=Group, help=ABOUT, no_args_is_help=False, invoke_without_command=True)
Name = Annotated[str, typer.Argument(metavar="NAME", help="A name of the list.", show_default=False)]


@app.callback()
def list_bases(context: typer.Context, as_json: AsJson = False) -> None:
    """Known bases: source, licence, size, whether they are here."""
    if context.invoked_subcommand is None:
        from tuneloop.flows.ledger import bases

        emit({"bases": bases()}, as_json)


@app.command("get")
def get_base(name: Name, as_json: AsJson = False) -> None:
    """Fetch a base with progress, verify it, try it, keep it in the cache.

    Example:

      tuneloop bases get smollm2-135m-instruct
    """
    from tuneloop.models.bases import get

    emit({"folder": str(get(name))}, as_json)
