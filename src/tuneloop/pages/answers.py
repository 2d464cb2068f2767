"""How the answers to some validation rows changed while training ran, for pages and trackers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]
SHOWN = 12
"""Rows that pages and trackers show; all stand in generations.jsonl."""
MOST = 6
"""Different answers to one row that pages show: the first and the last ones."""
FILE = "generations.jsonl"
HEAD = ("prompt", "reference", "answer")
LONGEST = 1_000  # characters of a text in a tracker's table


def spread(lines: Sequence[Json]) -> list[Json]:
    """At most SHOWN lines, evenly from all: the first ones may all be of one source."""
    return list(lines[:: -(-len(lines) // SHOWN) or 1])


def table(lines: Sequence[Json]) -> list[tuple[str, str, str]]:
    """(prompt, reference, answer) of the shown lines of one validation."""
    return [
        tuple(text if len(text) <= LONGEST else text[:LONGEST] + "…" for text in (_asked(line), *_said(line)))  # type: ignore[misc]
        for line in spread(lines)
    ]


def changes(lines: Sequence[Json]) -> list[dict[str, Any]]:
    """Of each shown row its prompt and reference, and its answers in order, equal ones in a row as one.

    Of many the first and the last ones; `left_out` counts those between.
    """
    rows: dict[str, dict[str, Any]] = {}
    first = [line for line in lines if line["step"] == lines[0]["step"]]
    for line in spread(first):
        rows[_key(line)] = {"asked": _asked(line), "reference": line["reference"], "said": []}
    for line in lines:
        row = rows.get(_key(line))
        if row is None:
            continue
        if row["said"] and row["said"][-1]["text"] == line["answer"]:
            row["said"][-1]["last"] = line["step"]
        else:
            right = line["answer"] is not None and line["answer"].strip() == line["reference"].strip()
            row["said"].append({"first": line["step"], "last": line["step"], "text": line["answer"], "right": right})
    for row in rows.values():
        row["left_out"] = max(0, len(row["said"]) - MOST)
        row["said"] = row["said"][:1] + row["said"][row["left_out"] + 1 :]
    return list(rows.values())


def _key(line: Json) -> str:
    """Equal Examples get equal answers, so they may be one."""
    return line["id"]


def _asked(line: Json) -> str:
    prompt = line["prompt"]
    return ("… " if len(prompt) > 1 else "") + (prompt[-1]["content"] if prompt else "")


def _said(line: Json) -> tuple[str, str]:
    return line["reference"], "(no answer)" if line["answer"] is None else line["answer"]
