"""`tuneloop compare`: finished runs on the examples they share, and the release gate."""

from typing import Annotated

import typer

from tuneloop.cli.options import RUNS, AsJson, RunsFolder, emit

Runs = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN...",
        help="Evaluate or tune runs: folder or part of its name; the first is the reference. One alone: its base is.",
        show_default=False,
    ),
]
Metrics = Annotated[list[str], typer.Option("--metric", metavar="NAME", help="Compare by this metric only.")]
Slices = Annotated[
    list[str],
    typer.Option("--slice", metavar="KEY", help="Show this slice only; KEY=VALUE compares only the examples in it."),
]
Gate = Annotated[
    str | None,
    typer.Option(
        "--gate", metavar="METRIC=MARGIN,...", help="Fail where a metric may be worse by more than its margin."
    ),
]
Least = Annotated[
    int | None, typer.Option("--gate-n", metavar="N", help="Shared examples that the gate wants at least.", min=1)
]


def command(
    names: Runs,
    metrics: Metrics = [],
    slices: Slices = [],
    gate: Gate = None,
    least: Least = None,
    runs: RunsFolder = RUNS,
    as_json: AsJson = False,
) -> None:
    """Compare finished runs on the examples they share, pair by pair; with --gate, say whether to release.

    Exit code of the gate: 0 passed, 3 worse by more than the margin, 4 not enough evidence to tell.

    Examples:

      tuneloop compare demo-b94c demo-77f0

      tuneloop compare champion candidate --gate exact_match=0.02,f1=0.02

      tuneloop compare champion candidate --metric f1 --slice language=zh --json
    """
    from tuneloop.core.errors import DataError
    from tuneloop.evaluate.config import GateConfig
    from tuneloop.evaluate.gate import parse
    from tuneloop.flows.compare import Plan, compare

    if least is not None and gate is None:
        raise DataError("--gate-n belongs to --gate METRIC=MARGIN")
    asked = None
    if gate is not None:
        asked = GateConfig(worse_by=parse(gate), **({"least": least} if least is not None else {}))
    found = compare(Plan(runs=tuple(names), metrics=tuple(metrics), slices=tuple(slices), gate=asked), runs)
    emit(found, as_json)
    if found["exit"]:
        raise typer.Exit(found["exit"])
