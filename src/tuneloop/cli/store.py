"""`tuneloop store`: what a service has kept."""

from pathlib import Path
from typing import Annotated

import typer

from tuneloop.cli.options import AsJson, Group, Settings, emit

ABOUT = """Look after the answers, votes and audit log that a service keeps.

Examples:

  tuneloop store stats

  tuneloop store expire --older-than 90d --yes
"""
app = typer.Typer(cls=Group, help=ABOUT, no_args_is_help=True)
TIME = "an age (12h, 90d, 8w) or a date"
File = Annotated[Path, typer.Argument(metavar="FILE", help="The JSONL file to write.", show_default=False)]
User = Annotated[
    str | None,
    typer.Argument(
        metavar="USER", help="As the client gave it in `user`; none: what came without.", show_default=False
    ),
]
Since = Annotated[str | None, typer.Option("--since", metavar="TIME", help=f"Only from then on: {TIME}.")]
Before = Annotated[str | None, typer.Option("--before", metavar="TIME", help=f"Only from before: {TIME}.")]
OlderThan = Annotated[str, typer.Option("--older-than", metavar="TIME", help=f"What is older goes: {TIME}.")]
Key = Annotated[
    str,
    typer.Option(
        "--key",
        metavar="ID",
        help="Whose user: an id of `tuneloop keys list`, file-1 for a key file's first, or local.",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", help="Really delete; without it only say how much would go.")]


@app.command("stats")
def stats(settings: Settings = [], as_json: AsJson = False) -> None:
    """How many answers, users, votes, keys and log entries there are, and from when.

    Example:

      tuneloop store stats
    """
    from tuneloop.flows import keeping, serving

    emit(keeping.stats(serving.settings(None, settings)), as_json)


@app.command("export")
def export(
    file: File, since: Since = None, before: Before = None, settings: Settings = [], as_json: AsJson = False
) -> None:
    """Write answers with the votes that count as Examples, for `tuneloop prepare` (format messages).

    Examples:

      tuneloop store export answers.jsonl

      tuneloop store export week.jsonl --since 7d --set serve.store=postgresql://localhost/tuneloop
    """
    from tuneloop.flows import keeping, serving

    emit(keeping.export(serving.settings(None, settings), file, since, before), as_json)


@app.command("expire")
def expire(older_than: OlderThan, yes: Yes = False, settings: Settings = [], as_json: AsJson = False) -> None:
    """Delete old answers with their votes.

    Examples:

      tuneloop store expire --older-than 90d

      tuneloop store expire --older-than 2026-08-01 --yes
    """
    from tuneloop.flows import keeping, serving

    emit(keeping.expire(serving.settings(None, settings), older_than, yes), as_json)


@app.command("delete-user")
def delete_user(
    user: User = None, key: Key = "local", yes: Yes = False, settings: Settings = [], as_json: AsJson = False
) -> None:
    """Delete the answers to a user, all votes on them, and the user's votes on others' answers.

    Examples:

      tuneloop store delete-user alice --key 0d3f5a1c

      tuneloop store delete-user --key 0d3f5a1c --yes
    """
    from tuneloop.flows import keeping, serving

    emit(keeping.delete_user(serving.settings(None, settings), user, key, yes), as_json)


@app.command("verify")
def verify(settings: Settings = [], as_json: AsJson = False) -> None:
    """Check the audit log: exit code 3 where an entry was changed, put in or taken out.

    Example:

      tuneloop store verify
    """
    from tuneloop.flows import keeping, serving

    found = keeping.verify(serving.settings(None, settings))
    emit(found, as_json)
    if not found["whole"]:
        raise typer.Exit(3)
