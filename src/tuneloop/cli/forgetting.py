"""`tuneloop forgetting`: a chain of versions, and what was lost on the way."""

from typing import Annotated

import typer

from tuneloop.cli.options import RUNS, Again, AsJson, RunsFolder, emit

Versions = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN...",
        help="Finished tune runs in the order in which they were made: folders or parts of their names.",
        show_default=False,
    ),
]
Probes = Annotated[
    str | None,
    typer.Option("--probes", metavar="FILE", help="Probes instead of those of the last run's recipe, or embedded."),
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="At most so many test rows of each version.")]


def command(
    versions: Versions,
    probes: Probes = None,
    limit: Limit = None,
    runs: RunsFolder = RUNS,
    again: Again = False,
    as_json: AsJson = False,
) -> None:
    """Show what each of several versions can do: base, v1, v2 …, with what was lost and backward transfer.

    The abilities are the probes of the recipe (evaluate.forgetting) and the test rows that each version was tuned for.

    Examples:

      tuneloop forgetting latest

      tuneloop forgetting first-7f3a second-91c2 third-0b5d
    """
    from tuneloop.flows import forgetting

    emit(forgetting.show(forgetting.chain(versions, runs, probes, limit, again)), as_json)
