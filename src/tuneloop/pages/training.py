"""The curves of a training from the rows of metrics.jsonl: as charts for any page, and as a page of their own."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tuneloop.pages import drawing
from tuneloop.pages.answers import changes
from tuneloop.pages.numbers import count, number, share
from tuneloop.pages.page import render

Json = dict[str, Any]
VALIDATION = re.compile(r"(val|validation|eval)[_/.]?loss")
PLAIN = {
    "loss_gap": "Validation loss minus training loss",
    "learning_rate": "Learning rate",
    "gradient_norm": "Gradient norm",
    "tokens_per_second": "Tokens a second",
    "mfu": "Share of the machine's matrix rate (MFU)",
    "memory_gib": "Memory, GiB",
}
"""Columns with a chart of their own; others that are not listed here, such as further loss terms, get one too."""
COUNTED = {
    "step", "epoch", "seconds", "loss", "tokens", "supervised_tokens", "supervised_tokens_per_second", 
    "computed_tokens", "validation_seconds",
}  # fmt: skip
REFRESH = 5  # seconds


def charts(rows: Sequence[Json]) -> list[Json]:
    """Loss (training and validation together), what else was measured on validation rows, then the other columns."""
    train = _line(rows, "loss")
    validation = [(row["step"], v) for row in rows for k, v in row.items() if VALIDATION.fullmatch(k) and _finite(v)]
    found: list[Json] = []
    if train or validation:
        thin = drawing.thinned(train)
        lines = [
            ("every step", "raw", thin),
            ("train", "train", drawing.smoothed(thin)),
            ("validation", "val", validation),
        ]
        lines = [line for line in lines if line[2]]
        found.append({"title": "Loss", "legend": lines, "svg": drawing.curves(lines, log=True)})
    names = list(dict.fromkeys(name for row in rows for name in row))
    others = [name for name in names if name not in COUNTED and name not in PLAIN and not VALIDATION.fullmatch(name)]
    for name in (*others, *PLAIN):
        points = _line(rows, name)
        if points:
            kind = "val" if name.startswith("val_") else "rate"
            lines = [(name, kind, drawing.thinned(points))]
            found.append({"title": PLAIN.get(name, name), "legend": [], "svg": drawing.curves(lines)})
    return found


def page(title: str, rows: Sequence[Json], *, live: bool, answers: Sequence[Mapping[str, Any]] = ()) -> str:
    """A self-contained page; while the run is `live` a browser loads it again every few seconds.

    `answers` are lines of generations.jsonl.
    """
    last = rows[-1] if rows else {}
    written = {"step": count, "epoch": number, "loss": number, "tokens_per_second": count, "mfu": share}
    facts = {name: write(last[name]) for name, write in written.items() if _finite(last.get(name))}
    return render(
        "tuneloop.pages", "training.html.jinja", title=title, charts=charts(rows), facts=facts,
        refresh=REFRESH if live else None, changes=changes(answers),
        findings=[found["text"] for row in rows for found in row.get("findings", ())],
    )  # fmt: skip


def _line(rows: Sequence[Json], key: str) -> list[drawing.Point]:
    return [(row["step"], row[key]) for row in rows if "step" in row and _finite(row.get(key))]


def _finite(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
