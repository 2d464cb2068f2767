"""`tuneloop merge`: adapter and base to one standard folder."""

from pathlib import Path
from typing import Annotated

import typer

from tuneloop.cli.options import RUNS, AsJson, RunsFolder, emit

Tuned = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="A finished tune run with an adapter: folder, part of its name, or latest.",
        show_default=False,
    ),
]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="FOLDER", help="A new folder to write; default: out/merged of the run.")
]
Dtype = Annotated[str | None, typer.Option("--dtype", help="bf16, fp16 or fp32; default: that of the base's weights.")]
Scale = Annotated[
    float | None, typer.Option("--scale", metavar="PART", help="Part of the adapter's change, 0 to 1; default: all.")
]


def command(
    run: Tuned,
    out: Out = None,
    dtype: Dtype = None,
    scale: Scale = None,
    runs: RunsFolder = RUNS,
    as_json: AsJson = False,
) -> None:
    """Merge an adapter into its base: a standard Hugging Face folder, loaded again and compared before it counts.

    Examples:

      tuneloop merge latest --out my-model

      tuneloop merge latest --scale 0.6 --out my-model
    """
    from tuneloop.flows.export import merge

    emit(merge(run, runs, out, dtype, scale), as_json)
