"""`tuneloop runs`: list, show and clean run folders."""

from typing import Annotated

import typer

from tuneloop.cli.options import RUNS, AsJson, Group, RunsFolder, emit

ABOUT = """List, show and clean run folders.

Example:

  tuneloop runs list
"""
app = typer.Typer(cls=Group, help=ABOUT, no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="RUN", help="Folder, part of its name, or latest.", show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", help="Really delete; without it only say what would go.")]


@app.command("list")
def list_runs(runs: RunsFolder = RUNS, as_json: AsJson = False) -> None:
    """All runs, oldest first, with stage, status and time.

    Example:

      tuneloop runs list
    """
    from tuneloop.flows.ledger import overview

    emit({"runs": overview(runs)}, as_json)


@app.command("show")
def show_run(run: Name, runs: RunsFolder = RUNS, as_json: AsJson = False) -> None:
    """One run: its record and its files.

    Example:

      tuneloop runs show latest
    """
    from tuneloop.flows.ledger import show

    emit(show(run, runs), as_json)


@app.command("clean")
def clean_runs(runs: RunsFolder = RUNS, yes: Yes = False, as_json: AsJson = False) -> None:
    """Delete runs that did not finish, and the checkpoints of those that did.

    Examples:

      tuneloop runs clean

      tuneloop runs clean --yes
    """
    from tuneloop.flows.ledger import clean

    emit(clean(runs, yes), as_json)
