"""The command line as programs and habits rely on it: names, options, help, start-up time."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from tuneloop.cli.main import COMMANDS, build

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "cli.txt"
HEAVY = {"torch", "transformers", "numpy", "pandas", "polars", "scipy", "matplotlib", "peft"}
SECONDS = 0.3  # CPU, user and system
PROBE = f"""
import atexit, sys
atexit.register(lambda: print("HEAVY", *({HEAVY!r} & set(sys.modules)), file=sys.stderr))
from tuneloop.cli.main import main
main()
"""


def walk(command: Any, path: tuple[str, ...] = ("tuneloop",)) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from walk(child, (*path, name))


ALL = dict(walk(typer.main.get_command(build())))
LEAVES = [path for path, command in ALL.items() if not getattr(command, "commands", {})]


def surface() -> str:
    """One line a command with its arguments, one line an option."""
    lines: list[str] = []
    for path, command in ALL.items():
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        shown = [p.metavar if p.required else f"[{p.metavar}]" for p in arguments]
        lines.append(" ".join([*path, *shown]))
        for option in (p for p in command.params if p.param_type_name == "option"):
            many = " (several)" if option.multiple else ""
            value = "" if option.is_flag else f" {option.metavar or option.name.upper()}"
            default = f" = {option.default}" if option.default not in (None, [], False, ()) else ""
            lines.append(f"    {', '.join(option.opts)}{value}{many}{default}")
    return "\n".join(lines) + "\n"


def test_commands_and_options_are_frozen() -> None:
    """Scripts rely on them. Where the change is meant: UPDATE_GOLDEN=1 pytest tests/contracts, and read the diff."""
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(surface(), "utf-8")
    assert surface() == GOLDEN.read_text("utf-8"), "the command line changed; see this test's docstring"


def test_every_command_stands_in_the_help_and_on_its_panel() -> None:
    named = [name for names in COMMANDS.values() for name in names]
    assert sorted(named) == sorted(path[1] for path in ALL if len(path) == 2)
    shown = subprocess.run([sys.executable, "-c", PROBE, "--help"], capture_output=True, text=True).stdout
    for word in (*COMMANDS, *named):
        assert word in shown


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_command_takes_json(path: tuple[str, ...]) -> None:
    assert any("--json" in parameter.opts for parameter in ALL[path].params)


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_help_is_light_and_shows_an_example(path: tuple[str, ...]) -> None:
    """Best of three, because other work on the machine only adds."""
    used: list[float] = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        answer = subprocess.run([sys.executable, "-c", PROBE, *path[1:], "--help"], capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
        assert answer.returncode == 0, answer.stderr
        assert answer.stderr == "HEAVY\n"
        if used[-1] < SECONDS:
            break
    assert min(used) < SECONDS, used
    assert answer.stdout.startswith(f"Usage: {' '.join(path)} ")
    if len(path) > 1:
        assert f"    {' '.join(path[:2])}" in answer.stdout.partition("Example")[2]


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_argument_and_option_is_explained(path: tuple[str, ...]) -> None:
    silent = [p.name for p in ALL[path].params if not (getattr(p, "help", None) or p.name == "help")]
    assert silent == []


def test_it_is_a_module_too() -> None:
    found = subprocess.run([sys.executable, "-m", "tuneloop", "--help"], capture_output=True, text=True, check=True)
    assert "First steps" in " ".join(found.stdout.split()) and "tuneloop" in found.stdout
