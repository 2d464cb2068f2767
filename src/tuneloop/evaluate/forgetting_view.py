"""The `forgetting` part of a report for people: what page, Markdown and terminal show of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tuneloop.pages.markdown import plain
from tuneloop.pages.numbers import interval, number, share

Json = dict[str, Any]
LISTED = 40  # lost or won items shown on the page; all stand in report.json
IN_MARKDOWN = 20
SCALES = {"proportion": "proportion", "mean": "proportion"}
"""Aggregations whose values lie between 0 and 1; of all others the bar's scale follows the values."""


def abilities(value: Json) -> Mapping[str, Json]:
    """Every ability by name; reports of earlier versions have one without a name."""
    return value.get("abilities") or {"known facts": value}


def on_page(value: Json, row: Callable[[str, Json, Json], Json]) -> Json:
    """What _forgetting.html.jinja shows; `row` makes a line of a table from label, numbers and the metric's facts."""
    found = abilities(value)
    facts = {name: _facts(entry) for name, entry in found.items()}
    return {
        "table": [row(name, entry, facts[name]) for name, entry in found.items()],
        "abilities": [
            {
                "name": name,
                "slices": [
                    (key, [row(label, part, facts[name]) for label, part in parts.items()])
                    for key, parts in entry["slices"].items()
                ],
                "lists": [
                    {"name": kind, "count": len(entry[kind]), "lines": entry[kind][:LISTED]}
                    for kind in ("lost", "won")
                    if kind in entry
                ],
            }
            for name, entry in found.items()
        ],
        "notes": notes(value),
        "signatures": [(name, entry["signature"]) for name, entry in found.items()],
    }


def _facts(entry: Json) -> Json:
    kind = SCALES.get(entry.get("aggregation", "proportion"), "geometric")
    return {"better": entry["better"], "signature": entry["signature"], "aggregation": kind}


def notes(value: Json) -> list[str]:
    """What the numbers mean beyond themselves: lost and won, contradictions, perplexity, drift, what is missing."""
    found: list[str] = []
    several = len(abilities(value)) > 1
    for name, entry in abilities(value).items():
        prefix = f"{name}: " if several else ""
        base = entry.get("base") or {}
        if "lost" in entry:
            lost, won = len(entry["lost"]), len(entry["won"])
            what = "lost" if several else "facts lost by tuning"
            found.append(f"{prefix}{what}: {lost}, won: {won} (listed in the report)")
        if entry["better"] == "higher" and base.get("value") == 0:
            found.append(f"{prefix}the base gets none of these right, so nothing of it can be forgotten")
        wrong = entry.get("contradicted")
        if wrong and wrong["value"]:
            count = round(wrong["value"] * wrong["n"])
            found.append(
                f"{prefix}of {wrong['n']} that the base knew, {count} now get another answer of the same kind: "
                f"{share(wrong['value'])} ({_range(wrong)})"
            )
        puzzled = entry.get("perplexity", {})
        if puzzled.get("base") and puzzled.get("tuned"):
            before, after = (number(puzzled[who]["value"]) for who in ("base", "tuned"))
            found.append(f"{prefix}perplexity per token {before} before, {after} after")
        for who, reasons in entry.get("unscored", {}).items():
            found += [f"{prefix}{count} unscored ({who}): {why}" for why, count in reasons.items()]
    drift = value.get("kl")
    if drift and drift["value"] is None:
        found.append(f"KL(tuned ‖ base) was not measured: {drift['why']}")
    elif drift:
        found.append(
            f"KL(tuned ‖ base) on {drift['n']} neutral prompts: {number(drift['value'])} ({_range(drift)}) nats a token"
        )
    return found


def to_markdown(value: Json, table: Callable[[list[tuple[str, Json]], str], list[str]]) -> list[str]:
    """Lines of Markdown; `table` makes one from labelled numbers and a head."""
    found = abilities(value)
    lines = ["", "## Forgetting", "", *table(list(found.items()), "ability"), ""]
    lines += [f"- {plain(note)}" for note in notes(value)]
    for name, entry in found.items():
        for key, rows in entry["slices"].items():
            lines += ["", f"### {plain(name)} by {plain(key)}", "", *table(list(rows.items()), key)]
        for kind in ("lost", "won"):
            lines += _listed(name, kind, entry[kind]) if entry.get(kind) else []
    return lines


def _listed(name: str, kind: str, changed: list[Json]) -> list[str]:
    lines = ["", f"### {plain(name)}: {len(changed)} {kind}", ""]
    for line in changed[:IN_MARKDOWN]:
        said = plain(line["tuned"] or "(nothing)")
        claim = f", which says {plain(line['instead'])}" if line.get("instead") else ""
        lines.append(f"- {plain(line['prompt'])} **{plain(line['answer'])}** (tuned: {said}{claim})")
    rest = len(changed) - IN_MARKDOWN
    return [*lines, f"- … and {rest} more in report.json"] if rest > 0 else lines


def _range(value: Json) -> str:
    return interval(value).replace(" … ", "–")
