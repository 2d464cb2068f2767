"""What a metric shows beside its number, as tables and drawings: confusion matrices, reliability, counts, agreement.

`Metric.details` gives {"kind": …, …}; a kind that is not known here is shown as its plain values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from tuneloop.pages import drawing
from tuneloop.pages.markdown import plain, table
from tuneloop.pages.numbers import number, share

if TYPE_CHECKING:
    from markupsafe import Markup

Json = dict[str, Any]
LONGEST = 40  # rows or columns of one table on the page


@dataclass(frozen=True)
class Shown:
    """One table. `shades`: of each cell behind the first of its row a share of 1 by which it is coloured."""

    title: str
    head: list[str]
    rows: list[list[str]]
    shades: list[list[float]] = field(default_factory=list["list[float]"])
    note: str = ""
    drawing: Markup | None = None


def shown(metric: str, details: Mapping[str, Any]) -> list[Shown]:
    """The tables of a metric's details: {contestant: details, or a list of them}."""
    found: list[Shown] = []
    for who, given in details.items():
        for one in given if isinstance(given, list) else [given]:
            make = KINDS.get(one.get("kind"), _plain)
            found.append(make(f"{metric}, {who}", one))
    return found


def to_markdown(metric: str, details: Mapping[str, Any]) -> list[str]:
    """The tables with their titles."""
    lines: list[str] = []
    for one in shown(metric, details):
        lines += ["", f"### {plain(one.title)}", "", *table(one.head, one.rows, [False, *(True for _ in one.head[1:])])]
        lines += ["", plain(one.note)] if one.note else []
    return lines


def _confusion(title: str, value: Json) -> Shown:
    """Rows are what was expected, columns what was answered; shaded by the share of their row."""
    labels, columns = list(map(str, value["labels"])), list(map(str, value.get("columns", value["labels"])))
    counts: list[list[int]] = value["counts"]
    left = f"; the first {LONGEST} of {len(labels)} labels" if len(labels) > LONGEST else ""
    rows = [[label, *map(str, row[:LONGEST])] for label, row in zip(labels, counts, strict=True)][:LONGEST]
    shades = [[count / (sum(row) or 1) for count in row[:LONGEST]] for row in counts[:LONGEST]]
    head = ["expected \\ answered", *columns[:LONGEST]]
    return Shown(f"{title}: confusion", head, rows, shades, f"rows: expected, columns: answered{left}")


def _reliability(title: str, value: Json) -> Shown:
    """How often answers of a confidence are right; on the diagonal, confidence is what it says."""
    bins: list[Json] = value["bins"]
    right = [one["accuracy"] if "accuracy" in one else one["value"] for one in bins]
    rows = [
        [f"{number(one['low'])}–{number(one['high'])}", number(one["confidence"]), number(share_), str(one["n"])]
        for one, share_ in zip(bins, right, strict=True)
    ]
    points = [(float(one["confidence"]), float(share_)) for one, share_ in zip(bins, right, strict=True) if one["n"]]
    lines = [("as it says", "raw", [(0.0, 0.0), (1.0, 1.0)]), ("measured", "val", points)]
    svg = drawing.curves(lines) if points else None
    return Shown(f"{title}: reliability", ["confidence", "mean", "right", "n"], rows, drawing=svg)


def _counts(title: str, value: Json) -> Shown:
    counts: dict[str, int] = value["counts"]
    total = sum(counts.values())
    rows = [[str(name), str(count), share(count, total)] for name, count in counts.items()]
    return Shown(f"{title}: counts", ["", "n", "share"], rows[:LONGEST])


def _table(title: str, value: Json) -> Shown:
    rows = [[_cell(cell) for cell in row] for row in value["rows"]]
    named = f"{title}: {value['title']}" if value.get("title") else title
    return Shown(named, list(map(str, value["head"])), rows[:LONGEST], note=str(value.get("note", "")))


def _plain(title: str, value: Json) -> Shown:
    """Single values as a table of two columns; a list of alike mappings under `by` becomes columns of its own."""
    kind = str(value.get("kind", "")).replace("_", " ")
    named = f"{title}: {kind}" if kind else title
    by = value.get("by")
    flat = [[key, _cell(one)] for key, one in _leaves(value) if key not in ("kind", "by")]
    if isinstance(by, list) and by and all(isinstance(row, dict) for row in cast("list[Any]", by)):
        table_rows = cast("list[Json]", by)
        note = ", ".join(f"{key.replace('_', ' ')} {cell}" for key, cell in flat)
        return Shown(named, list(table_rows[0]), [[_cell(x) for x in row.values()] for row in table_rows], note=note)
    return Shown(named, ["", "value"], [[key.replace("_", " "), cell] for key, cell in flat][:LONGEST])


def _leaves(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, one in value.items():
        if isinstance(one, dict):
            found += _leaves(cast("Json", one), f"{prefix}{key} ")
        else:
            found.append((f"{prefix}{key}", one))
    return found


def _cell(value: object) -> str:
    if isinstance(value, float):
        return number(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_cell(one) for one in value)
    return "–" if value is None else str(value)


KINDS = {"confusion": _confusion, "reliability": _reliability, "counts": _counts, "table": _table}
