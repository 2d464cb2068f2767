"""`tuneloop chat`: talk to a model."""

from typing import Annotated

import typer

from tuneloop.cli.options import RUNS, AsJson, RunsFolder, emit

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A tune run (folder, part of its name, or latest), a model folder, or any base.",
        show_default=False,
    ),
]
Text = Annotated[
    list[str], typer.Option("-m", "--message", metavar="TEXT", help="Ask this and leave (several: one conversation).")
]
System = Annotated[str | None, typer.Option("--system", metavar="TEXT", help="System message.")]
MaxNew = Annotated[int, typer.Option("--max-new-tokens", min=1, help="Length limit of an answer.")]


def command(
    model: Model,
    message: Text = [],
    system: System = None,
    max_new_tokens: MaxNew = 256,
    runs: RunsFolder = RUNS,
    as_json: AsJson = False,
) -> None:
    """Talk to a model in the terminal, prompted exactly as in training.

    Examples:

      tuneloop chat latest

      tuneloop chat embedded -m "What is the capital of France?"
    """
    from tuneloop.flows.chat import chat

    emit({"answers": chat(model, runs, message, system, max_new_tokens)}, as_json)
