"""Several runs side by side: what was trained, how fast, in how much memory, how well, and what was forgotten."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneloop.core import jsonl
from tuneloop.pages import charts, drawing
from tuneloop.pages.numbers import interval, number
from tuneloop.pages.page import render
from tuneloop.track import metrics

if TYPE_CHECKING:
    from markupsafe import Markup
    from rich.table import Table

Json = dict[str, Any]
COSTS = {
    "trained": "trained parameters", "tokens_per_second": "tokens/s", "memory_gib": "memory, GiB",
    "seconds": "training, s", "bytes": "size on disk, MB", "val_loss": "validation loss",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One run in the table; a value that was not measured is absent. `error` says why there is none at all."""

    name: str
    costs: dict[str, float] = field(default_factory=dict[str, float])
    scores: dict[str, Json] = field(default_factory=dict[str, Json])
    """Metric → value with n and interval, of the tuned model."""
    base: dict[str, Json] = field(default_factory=dict[str, Json])
    """The same of the base."""
    curve: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    """Validation loss by step."""
    runs: dict[str, str] = field(default_factory=dict[str, str])
    error: str | None = None

    def to_json(self) -> Json:
        """For sweep.json."""
        return {
            "name": self.name, "costs": self.costs, "scores": self.scores, "base": self.base, "curve": self.curve,
            "runs": self.runs, "error": self.error,
        }  # fmt: skip


KNOWN = "known facts"
"""The score of the forgetting probes, beside the metrics."""


def row_of(name: str, tuned: Path, evaluated: Path | None = None) -> Row:
    """The row of finished runs: of the stage `tune`, and of its evaluation where there is one."""
    steps = metrics.read(tuned / "metrics.jsonl")
    summary = jsonl.read(tuned / "out" / "summary.json")
    curve = [(row["step"], row["val_loss"]) for row in steps if row.get("val_loss") is not None]
    costs = {
        "trained": summary["trained"],
        "tokens_per_second": statistics.median(row["tokens_per_second"] for row in steps),
        "memory_gib": max(row["memory_gib"] for row in steps),
        "seconds": sum(row["seconds"] for row in steps),
        "bytes": summary["bytes"],
    }
    if curve:
        costs["val_loss"] = min(value for _, value in curve)
    scores: dict[str, Json] = {}
    base: dict[str, Json] = {}
    runs = {"tune": str(tuned)}
    if evaluated is not None:
        runs["evaluate"] = str(evaluated)
        report = jsonl.read(evaluated / "out" / "report.json")
        entries = dict(report["metrics"])
        if report.get("forgetting"):
            entries[KNOWN] = report["forgetting"]
        scores = {metric: entry["tuned"] for metric, entry in entries.items() if entry.get("tuned")}
        base = {metric: entry["base"] for metric, entry in entries.items() if entry.get("base")}
    return Row(name, costs, scores, base, curve, runs)


def columns(rows: Sequence[Row]) -> list[str]:
    """The metrics that any of the rows has, in their order."""
    return list(dict.fromkeys(metric for row in rows for metric in row.scores))


def cost(name: str, row: Row) -> str:
    """A cost as text."""
    value = row.costs.get(name)
    if value is None:
        return "–"
    if name == "bytes":
        return f"{value / 1e6:,.1f}"
    return f"{value:,.0f}" if name in ("trained", "tokens_per_second", "seconds") else number(value)


def score(value: Json | None) -> str:
    """A score with its interval as text."""
    return f"{number(value['value'])} ({interval(value)})" if value and value["value"] is not None else "–"


def to_rich(rows: Sequence[Row], title: str) -> Table:
    """For the terminal."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
    table.add_column("", no_wrap=True)
    for name in (*COSTS.values(), *columns(rows)):
        table.add_column(name, justify="right")
    for row in rows:
        if row.error:
            table.add_row(row.name, f"[red]failed[/]: {row.error.splitlines()[0]}")
        else:
            table.add_row(
                row.name, *(cost(name, row) for name in COSTS), *(score(row.scores.get(m)) for m in columns(rows))
            )
    return table


def to_markdown(rows: Sequence[Row], title: str) -> str:
    """A table for documents, the base's scores as its last line."""
    names = columns(rows)
    head = ["", *COSTS.values(), *names]
    lines = [f"# {title}", "", f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    for row in rows:
        cells = [*(cost(name, row) for name in COSTS), *(score(row.scores.get(name)) for name in names)]
        lines.append(f"| {row.name} | failed: {row.error} |" if row.error else f"| {row.name} | {' | '.join(cells)} |")
    base = _base([row for row in rows if not row.error])
    if base:
        cells = ["–"] * len(COSTS) + [score(base.get(name)) for name in names]
        lines.append(f"| base, untuned | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def to_html(rows: Sequence[Row], title: str) -> str:
    """A self-contained page: the table, validation curves laid over each other, each column as bars."""
    good = [row for row in rows if not row.error]
    names = columns(good)
    bars: list[Json] = []
    for metric in names:
        values = [(row.name, row.scores[metric]["value"]) for row in good if metric in row.scores]
        bars.append({"title": metric, "svg": _bars(values, number)})
    for name, label in COSTS.items():
        values = [(row.name, row.costs[name]) for row in good if name in row.costs]
        bars.append({"title": label, "svg": _bars(values, partial(_short, name))})
    drawn = [row for row in good if row.curve]
    again = [" again" * (place >= charts.COLOURS) for place in range(len(drawn))]  # the colours come round: dashed
    lines = [(row.name, charts.colour(place) + again[place], row.curve) for place, row in enumerate(drawn)]
    return render(
        "tuneloop.flows", "comparison.html.jinja", title=title, rows=rows, names=names, costs=COSTS, cost=cost,
        base=_base(good), bars=[bar for bar in bars if bar["svg"]], lines=lines, curves=drawing.curves(lines, log=True),
    )  # fmt: skip


def _base(rows: Sequence[Row]) -> dict[str, Json]:
    """The base's scores, where all rows were tuned from one and asked the same."""
    found = [row.base for row in rows if row.base]
    return found[0] if found and all(one == found[0] for one in found) else {}


def _bars(values: Sequence[tuple[str, float]], written: Callable[[float], str]) -> Markup:
    return charts.bars([""], [(name, [value], written(value)) for name, value in values])


def _short(cost: str, value: float) -> str:
    return drawing.short(value / 1e6 if cost == "bytes" else value)
