"""`tuneloop keys`: who may use the service."""

from typing import Annotated

import typer

from tuneloop.cli.options import AsJson, Group, Settings, emit

ABOUT = """Make, list and revoke the keys of a service.

Example:

  tuneloop keys create "support desk" --role chat --role rate
"""
app = typer.Typer(cls=Group, help=ABOUT, no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is.", show_default=False)]
Id = Annotated[str, typer.Argument(metavar="ID", help="As `tuneloop keys list` shows it.", show_default=False)]
Roles = Annotated[
    list[str],
    typer.Option("--role", metavar="ROLE", help="What it allows: chat, rate, train, approve, watch, admin (several)."),
]


@app.command("create")
def create(name: Name, role: Roles = ["chat"], settings: Settings = [], as_json: AsJson = False) -> None:
    """Make a key and show it, for the only time: of keys only hashes are kept.

    Examples:

      tuneloop keys create "support desk" --role chat --role rate

      tuneloop keys create me --role admin --set serve.store=postgresql://localhost/tuneloop
    """
    from tuneloop.flows import serving

    emit(serving.create_key(serving.settings(None, settings), name, role), as_json)


@app.command("list")
def list_keys(settings: Settings = [], as_json: AsJson = False) -> None:
    """All keys, the revoked ones too, without what is secret of them.

    Example:

      tuneloop keys list
    """
    from tuneloop.flows import serving

    emit({"keys": serving.list_keys(serving.settings(None, settings))}, as_json)


@app.command("revoke")
def revoke(id: Id, settings: Settings = [], as_json: AsJson = False) -> None:
    """Make a key good for nothing, at once and for good.

    Example:

      tuneloop keys revoke 0d3f5a1c
    """
    from tuneloop.flows import serving

    emit(serving.revoke_key(serving.settings(None, settings), id), as_json)
