"""`tuneloop audit`: what a person should know about the data before training on it."""

import json
from pathlib import Path
from typing import Annotated

import typer

from tuneloop.cli.options import RUNS, Again, AsJson, RunsFolder, Settings, emit

Inputs = Annotated[
    list[Path],
    typer.Argument(metavar="RECIPE|FILE…", help="A recipe, or data files as they are.", show_default=False),
]
Base = Annotated[str, typer.Option("--base", help="Whose tokens are counted, where no recipe says it.")]

Encoder = Annotated[
    Path | None,
    typer.Option("--encoder", metavar="FOLDER", help="A sentence encoder, to cluster the instructions by meaning."),
]


def command(
    inputs: Inputs,
    base: Base = "embedded",
    encoder: Encoder = None,
    settings: Settings = [],
    runs: RunsFolder = RUNS,
    again: Again = False,
    as_json: AsJson = False,
) -> None:
    """Prepare the data and show its card: rows lost and why, languages, lengths, duplicates, leaks, private data.

    Examples:

      tuneloop audit recipe.yaml

      tuneloop audit tickets.jsonl faq.csv --set data.steps='[repair, near_duplicates]'
    """
    from tuneloop.flows.audit import audit

    named = [f"data.audit.encoder={json.dumps(str(encoder.resolve()))}"] if encoder else []
    emit(audit(inputs, base, [*settings, *named], runs, again), as_json)
