"""The README's commands, as written, in the order in which they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from demo_run import Demo

ROOT = Path(__file__).resolve().parents[2]
SLOW = {"make demo", "make test", "make base"}  # the demo and the suite itself are tested elsewhere


def commands() -> list[str]:
    """All lines of the README's `sh` blocks."""
    text = (ROOT / "README.md").read_text("utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and line not in SLOW]


def test_the_readme_has_commands() -> None:
    assert len(commands()) >= 5


def test_they_run_as_written(demo: Demo) -> None:
    """In the folder where the demo has run, whose stages are not run again; later commands use what others made."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for command in commands():
        done = subprocess.run(
            command, shell=True, cwd=demo.folder, env=environment, capture_output=True, text=True, timeout=600
        )
        if done.returncode:
            pytest.fail(f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
