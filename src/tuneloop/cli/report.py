"""`tuneloop report`: the numbers of a finished evaluation."""

from typing import Annotated

import typer

from tuneloop.cli.options import RUNS, AsJson, RunsFolder, emit

Evaluated = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="A finished evaluate run: folder, part of its name, or latest.", show_default=False
    ),
]


def command(run: Evaluated, runs: RunsFolder = RUNS, as_json: AsJson = False) -> None:
    """Show the table of an evaluation and where its pages lie.

    Examples:

      tuneloop report latest

      tuneloop report runs/20261201-0945-evaluate-support-desk-91c2 --json
    """
    from tuneloop.flows.inspect import report

    emit(report(run, runs), as_json)
