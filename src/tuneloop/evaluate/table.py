"""The report as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tuneloop.evaluate.details import shown
from tuneloop.evaluate.forgetting_view import abilities
from tuneloop.evaluate.forgetting_view import notes as forgetting_notes
from tuneloop.evaluate.report import Report, notes, verdict
from tuneloop.pages.numbers import interval, number, percent, probability

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

SMALL = 10  # rows and columns of a table of details in the terminal
COLOURS = {"better": "green", "worse": "red", "changed": "yellow", "even": "dim", "unknown": "dim"}


def to_rich(report: Report) -> Group:
    """All metrics, then each slice by the first metric, then forgetting; with what was cut or not scored."""
    from rich.console import Group
    from rich.text import Text

    value = report.value
    confidence = value["confidence"]
    first = next(iter(value["metrics"]))
    table = _new(f"{value['n']} examples of the {value['split']} split", "metric", confidence)
    for name, entry in value["metrics"].items():
        _add(table, name, entry, entry["better"], confidence)
    for key, rows in value.get("slices", {}).items():
        table.add_section()
        table.add_row(Text(f"{first} by {key}", style="dim italic"))
        for label, entry in rows.items():
            _add(table, f"  {label}", entry[first], value["metrics"][first]["better"], confidence)
    if "forgetting" in value:
        table.add_section()
        _add_forgetting(table, abilities(value["forgetting"]), confidence)
    return Group(table, *_details(value), *_notes(value))


def _details(value: dict[str, Any]) -> list[Table]:
    """What metrics show beside their number, of the tuned model; small tables only, the pages have all."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    found: list[Table] = []
    for name, entry in value["metrics"].items():
        for one in shown(name, {who: part for who, part in entry.get("details", {}).items() if who == "tuned"}):
            if len(one.rows) <= SMALL and len(one.head) <= SMALL:
                table = Table(title=one.title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
                for place, head in enumerate(one.head):
                    table.add_column(Text(head), justify="right" if place else "left")
                for row in one.rows:
                    table.add_row(*map(Text, row))
                found.append(table)
    return found


def _new(title: str, head: str, confidence: float) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
    table.add_column(head, no_wrap=True)
    share = percent(confidence)
    for name in (f"base, {share}", f"tuned, {share}"):
        table.add_column(name, justify="right")
    for name in ("change", "p", "n"):
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _add(table: Table, label: str, entry: dict[str, Any], better: str, confidence: float) -> None:
    from rich.text import Text

    base, tuned, change = entry.get("base") or {}, entry.get("tuned") or {}, entry.get("difference")
    colour = COLOURS[verdict(change, better, confidence)]
    table.add_row(
        Text(label),
        _measured(base, ""),
        _measured(tuned, "bold"),
        Text(number(change["value"], signed=True) if change else "–", style=colour),
        Text(probability(change.get("p_holm", change["p"])) if change else "–"),
        Text(str(tuned.get("n", 0))),
    )


def _add_forgetting(table: Table, found: Mapping[str, dict[str, Any]], confidence: float) -> None:
    """A row for each ability; of a single one a row for each group and kind."""
    from rich.text import Text

    if len(found) > 1:
        table.add_row(Text("abilities (forgetting)", style="dim italic"))
        for name, entry in found.items():
            _add(table, f"  {name}", entry, entry["better"], confidence)
        return
    (single,) = found.values()
    table.add_row(Text("known facts (forgetting)", style="dim italic"))
    _add(table, "  all", single, single["better"], confidence)
    for key in ("group", "kind"):
        for label, entry in single["slices"].get(key, {}).items():
            _add(table, f"  {label}", entry, single["better"], confidence)


def _measured(value: dict[str, Any], style: str) -> Text:
    """A number and its interval in a cell that still fits a terminal of 80 columns."""
    from rich.text import Text

    return Text.assemble((number(value.get("value")), style), " ", (interval(value).replace(" … ", "–"), "dim"))


def _notes(value: dict[str, Any]) -> list[Text]:
    from rich.text import Text

    found = notes(value)
    if "forgetting" in value:
        found += forgetting_notes(value["forgetting"])
    return [Text(note, style="dim") for note in found]
