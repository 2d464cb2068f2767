"""What is there: runs with their status, known bases."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from tuneloop.core import runs
from tuneloop.track import console


def overview(root: Path) -> list[dict[str, Any]]:
    """All runs, oldest first."""
    table = Table("run", "stage", "status", "started", "size", box=None, header_style="bold")
    rows: list[dict[str, Any]] = []
    for run in runs.all_runs(root):
        started = run.record.get("started") or run.record["created"]
        size = _size(run.path)
        rows.append({
            "run": str(run.path), "stage": run.stage, "status": run.status, "started": started, "bytes": size,
        })  # fmt: skip
        status = Text(run.status, {"done": "green", "failed": "red"}.get(run.status, "yellow"))
        table.add_row(Text(run.path.name), run.stage, status, started[:16].replace("T", " "), _megabytes(size))
    console.say(table if rows else Text(f"no runs in {root}/; `tuneloop demo` makes the first"))
    return rows


def show(name: str, root: Path) -> dict[str, Any]:
    """One run's record and files."""
    run = runs.resolve(root, name)
    console.decided("run", str(run.path))
    facts = {**run.record, "status": run.status}
    for key in ("stage", "status", "created", "started", "finished", "error"):
        if facts.get(key):
            console.decided(key, facts[key])
    for title in ("inputs", "outputs", "versions"):
        console.say(f"[bold]{title}[/]")
        for key, value in run.record[title].items():
            console.say(Text(f"  {key:<44}{value if title == 'versions' else value[:23]}"))
    return {"run": str(run.path), **run.record}


def clean(root: Path, really: bool) -> dict[str, Any]:
    """Removes runs that did not finish and the checkpoints of finished ones; only says so unless `really`."""
    verb = "deleting" if really else "would delete"
    unfinished = [run for run in runs.all_runs(root) if not run.done]
    leftovers = [run for run in runs.all_runs(root) if run.done and (run.out / "checkpoints").is_dir()]
    busy = [run for run in unfinished if run.status == "running"]
    for run in busy:
        console.say(Text(f"in use, left alone: {run.path}"))
    unfinished = [run for run in unfinished if run not in busy]
    freed = sum(_size(run.path) for run in unfinished) + sum(_size(run.out / "checkpoints") for run in leftovers)
    for run in unfinished:
        console.say(Text(f"{verb} {run.path} ({run.status})"))
        if really:
            runs.remove(run)
    for run in leftovers:
        console.say(Text(f"{verb} {run.out / 'checkpoints'}"))
        if really:
            shutil.rmtree(run.out / "checkpoints")
    if unfinished or leftovers:
        console.say(f"{_megabytes(freed)} {'freed' if really else 'to free; --yes deletes'}")
    else:
        console.say("nothing to delete")
    return {"runs": [str(run.path) for run in unfinished], "checkpoints": [str(run.path) for run in leftovers],
            "bytes": freed, "deleted": really}  # fmt: skip


def bases() -> list[dict[str, Any]]:
    """Known bases."""
    from tuneloop.models.bases import list_bases

    rows = list_bases()
    for row in rows:
        facts = [f"{row['parameters'] / 1e6:,.0f} M parameters" if row["parameters"] else None, row["licence"],
                 f"{row['context']:,} tokens of context" if row["context"] else None]  # fmt: skip
        size = f" ({_megabytes(row['size'])})" if row["size"] else ""
        console.say(Text.assemble((row["name"], "bold cyan"), "  ", ", ".join(filter(None, facts))))
        console.say(Text(f"    {row['about']}"))
        console.say(Text(f"    from {row['source']}"))
        place = f"here: {row['here']}" if row["here"] else f"not here: {row['get'] or 'make base'}{size}"
        console.say(Text(f"    {place}"))
    console.say("[dim]Also taken as model.base: a folder, a .gguf file, a hub id (org/name), a tune run.[/]")
    return rows


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
