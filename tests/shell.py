"""The command line as tests type it: in this process (fast), or in one of its own."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml

from tuneloop.cli.main import main


@dataclass(frozen=True)
class Answer:
    """What a command left: exit code, stdout and stderr."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The last line on stdout."""
        return json.loads(self.out.splitlines()[-1])


def tuneloop(*arguments: object) -> Answer:
    """`tuneloop ARGUMENTS` in the current folder."""
    out, err = io.StringIO(), io.StringIO()
    typed = ["tuneloop", *map(str, arguments)]
    with patch.object(sys, "argv", typed), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return Answer(code, out.getvalue(), err.getvalue())


def refused(*arguments: object) -> str:
    """The message of a command that must end as a user's error: exit 2, no traceback, nothing on stdout."""
    answer = tuneloop(*arguments)
    assert answer.code == 2, answer
    assert answer.out == ""
    assert "Traceback" not in answer.err
    return answer.err


def start(*arguments: object, cwd: Path) -> subprocess.Popen[str]:
    """`tuneloop ARGUMENTS` as a process of its own."""
    typed = [sys.executable, "-m", "tuneloop.cli.main", *map(str, arguments)]
    return subprocess.Popen(typed, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def sums(count: int = 40) -> list[dict[str, Any]]:
    """Rows of the format `prompt_response`."""
    return [{"prompt": f"Add {n} and {n * 3 % 17}.", "response": str(n + n * 3 % 17)} for n in range(count)]


def write_rows(path: Path, rows: Sequence[Any]) -> Path:
    """A JSONL file."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def write_recipe(folder: Path, model: dict[str, Any], rows: Sequence[Any] | None = None, **tune: Any) -> Path:
    """rows.jsonl and recipe.yaml of a job that trains two steps."""
    write_rows(folder / "rows.jsonl", sums() if rows is None else rows)
    recipe = {
        "name": "tiny",
        "model": {"dtype": "fp32", **model},
        "data": {"sources": [{"path": "rows.jsonl"}]},
        "tune": {"steps": 2, "batch_size": 4, "max_length": 128, **tune},
        "evaluate": {"metrics": ["exact_match"], "max_new_tokens": 4},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), "utf-8")
    return path
