"""The entry point: the commands by name, and what errors turn into (2 for users' errors, 130 for ^C, 1 for bugs)."""

from __future__ import annotations

import importlib
import sys

import typer

from tuneloop import __version__
from tuneloop.core.errors import TuneloopError

COMMANDS = {
    "The job": ("run", "check", "preview", "demo"),
    "Its stages": ("prepare", "tune", "pretrain", "evaluate", "merge"),
    "What came of it": ("chat", "report", "runs"),
    "Reference": ("bases", "list", "schema"),
}
NO_COMMAND_FILE = {"list": "families"}  # `list` as a module name would hide the builtin in its own file


def build() -> typer.Typer:
    """The application with all commands; each file gives `command` (a function) or `app` (sub-commands)."""
    app = typer.Typer(
        name="tuneloop",
        help="From raw data and an open model to a tuned, evaluated, usable model.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_version)
    for panel, names in COMMANDS.items():
        for name in names:
            module = importlib.import_module(f"tuneloop.cli.{NO_COMMAND_FILE.get(name, name)}")
            if hasattr(module, "app"):
                app.add_typer(module.app, name=name, rich_help_panel=panel)
            else:
                app.command(name, rich_help_panel=panel)(module.command)
    return app


def _version(version: bool = typer.Option(False, "--version", help="Print the version.")) -> None:
    if version:
        print(f"tuneloop {__version__}")
        raise typer.Exit


def main() -> None:
    """Runs the command line. Usage errors (exit 2) and ^C (exit 130) are typer's; our users' errors exit 2 as well."""
    try:
        build()()
    except TuneloopError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader of our output has gone, as with `| head`
        sys.exit(0)


if __name__ == "__main__":
    main()
