"""The entry point: the commands by name, and what errors turn into (2 for users' errors, 130 for ^C, 1 for bugs)."""

from __future__ import annotations

import errno
import gc
import importlib
import logging
import os
import sys
import warnings
from typing import Any

import typer

from tuneloop import __version__
from tuneloop.cli.options import Group
from tuneloop.core.errors import TuneloopError
from tuneloop.core.machine import RARE_COLLECTIONS

COMMANDS = {
    "The job": ("run", "check", "preview", "audit", "sweep", "demo"),
    "Its stages": ("prepare", "tune", "pretrain", "evaluate", "merge"),
    "What came of it": ("chat", "serve", "keys", "store", "report", "compare", "forgetting", "remedy", "runs"),
    "Reference": ("bases", "list", "schema"),
}
NO_COMMAND_FILE = {"list": "families"}  # `list` as a module name would hide the builtin in its own file
USERS_TROUBLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}
QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # they tear our own
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


class Commands(Group):
    """The list of commands in `tuneloop --help`, by what they are for."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for title, names in COMMANDS.items():
            rows = [(name, (self.commands[name].help or "").partition("\n\n")[0]) for name in names]
            with formatter.section(title):
                formatter.write_dl([(f"{name:<10}", " ".join(about.split())) for name, about in rows])


def build() -> typer.Typer:
    """The application with all commands; each file gives `command` (a function) or `app` (sub-commands)."""
    app = typer.Typer(
        name="tuneloop",
        cls=Commands,
        help="From raw data and an open model to a tuned, evaluated, usable model. First steps: tuneloop demo",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,  # plain text: half the start-up time, and it can be piped
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_version)
    for name in (name for names in COMMANDS.values() for name in names):
        module = importlib.import_module(f"tuneloop.cli.{NO_COMMAND_FILE.get(name, name)}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name)
        else:
            app.command(name)(module.command)
    return app


def _version(version: bool = typer.Option(False, "--version", help="Print the version.")) -> None:
    if version:
        print(f"tuneloop {__version__}")
        raise typer.Exit


def main() -> None:
    """Runs the command line. Usage errors (exit 2) and ^C (exit 130) are typer's; our users' errors exit 2 as well."""
    _quiet_libraries()
    gc.set_threshold(*RARE_COLLECTIONS)
    try:
        build()(prog_name="tuneloop")
    except TuneloopError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno not in USERS_TROUBLE:
            raise
        print(f"error: {error.strerror}: {error.filename or 'no file named'}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:  # before typer had begun
        sys.exit(130)


def _quiet_libraries() -> None:
    """What libraries tell their developers is none of our users' business; PYTHONWARNINGS and -W bring it back."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    # it tells, at each start, which further download would make it faster
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if not sys.warnoptions:
        warnings.filterwarnings("ignore", module=r"(?!tuneloop)")


if __name__ == "__main__":
    main()
