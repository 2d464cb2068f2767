"""`tuneloop remedy`: what to do about forgetting, from measured numbers."""

from typing import Annotated

import typer

from tuneloop.cli.options import RUNS, AsJson, RunsFolder, Settings, emit

Tuned = Annotated[
    str,
    typer.Argument(metavar="RUN", help="A finished tune run: folder, part of its name, or latest.", show_default=False),
]
Scales = Annotated[
    str, typer.Option("--scales", metavar="LIST", help="Parts of what was tuned to try, beside all and nothing of it.")
]
Gate = Annotated[
    float, typer.Option("--gate", metavar="DROP", min=0, help="The most that any ability may drop against the base.")
]
Probes = Annotated[
    str | None, typer.Option("--probes", metavar="FILE", help="Probes instead of those of the recipe, or embedded.")
]
General = Annotated[
    str | None,
    typer.Option("--general", metavar="FILE", help="General rows other than the probes, to replay or keep to."),
]
Apply = Annotated[
    list[str],
    typer.Option("--apply", metavar="REMEDY", help="scale writes the chosen scale; replay, keep, epochs train again."),
]


def command(
    run: Tuned,
    scales: Scales = "0.8,0.6,0.4",
    gate: Gate = 0.02,
    probes: Probes = None,
    general: General = None,
    apply: Apply = [],
    settings: Settings = [],
    runs: RunsFolder = RUNS,
    as_json: AsJson = False,
) -> None:
    """Recommend and apply remedies for forgetting: scales of the tuned part, replay, KL to the base, fewer epochs.

    Scales need no training. Without --apply nothing else is run: the recipes of the other remedies are written.

    Examples:

      tuneloop remedy latest

      tuneloop remedy 7f3a --general general.jsonl --apply replay --apply keep
    """
    from tuneloop.core.errors import RunError
    from tuneloop.flows import remedy

    try:
        chosen = tuple(float(part) for part in scales.split(",") if part.strip())
    except ValueError as error:
        raise RunError(f"--scales {scales}: numbers between 0 and 1 with commas, e.g. 0.8,0.6,0.4") from error
    wanted = remedy.Wanted(chosen, gate, probes, general, tuple(apply), tuple(settings))
    emit(remedy.show(remedy.remedy(run, runs, wanted)), as_json)
