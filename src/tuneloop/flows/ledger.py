"""What is there: runs with their status, known bases."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tuneloop.core import runs
from tuneloop.track import console


def overview(root: Path) -> list[dict[str, Any]]:
    """All runs, oldest first."""
    from rich.table import Table

    table = Table("run", "stage", "status", "started", "size", box=None, header_style="bold")
    rows: list[dict[str, Any]] = []
    for run in runs.all_runs(root):
        started = run.record.get("started") or run.record["created"]
        size = _size(run.path)
        rows.append({
            "run": str(run.path), "stage": run.stage, "status": run.status, "started": started, "bytes": size,
        })  # fmt: skip
        colour = {"done": "green", "failed": "red"}.get(run.status, "yellow")
        table.add_row(run.path.name, run.stage, f"[{colour}]{run.status}[/]", started[:16], _megabytes(size))
    console.say(table if rows else f"no runs in {root}/; `tuneloop demo` makes the first")
    return rows


def show(name: str, root: Path) -> dict[str, Any]:
    """One run's record and files."""
    from rich.text import Text

    run = runs.resolve(root, name)
    for key in ("stage", "status", "created", "started", "finished", "error"):
        if run.record.get(key):
            console.say(Text(f"{key:<10}{run.record[key]}"))
    for title in ("inputs", "outputs", "versions"):
        console.say(f"[bold]{title}[/]")
        for key, value in run.record[title].items():
            console.say(Text(f"  {key:<44}{value if title == 'versions' else value[:23]}"))
    return {"run": str(run.path), **run.record}


def clean(root: Path, really: bool) -> dict[str, Any]:
    """Removes runs that did not finish and the checkpoints of finished ones; only says so unless `really`."""
    unfinished = [run for run in runs.all_runs(root) if not run.done]
    leftovers = [run for run in runs.all_runs(root) if run.done and (run.out / "checkpoints").is_dir()]
    freed = sum(_size(run.path) for run in unfinished) + sum(_size(run.out / "checkpoints") for run in leftovers)
    for run in unfinished:
        console.say(f"{'deleting' if really else 'would delete'} {run.path} ({run.status})")
        if really:
            runs.remove(run)
    for run in leftovers:
        console.say(f"{'deleting' if really else 'would delete'} {run.out / 'checkpoints'}")
        if really:
            shutil.rmtree(run.out / "checkpoints")
    console.say(f"{_megabytes(freed)} {'freed' if really else 'to free; --yes deletes'}")
    return {"runs": [str(run.path) for run in unfinished], "checkpoints": [str(run.path) for run in leftovers],
            "bytes": freed, "deleted": really}  # fmt: skip


def bases() -> list[dict[str, Any]]:
    """Known bases."""
    from rich.table import Table

    from tuneloop.models.bases import list_bases

    rows = list_bases()
    table = Table(*rows[0], box=None, header_style="bold")
    for row in rows:
        table.add_row(*(str(value) if value is not None else "" for value in row.values()))
    console.say(table)
    return rows


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


