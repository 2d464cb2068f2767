"""card.md: the card for terminals and reviews; drawings become tables."""

from __future__ import annotations

from typing import Any

from tuneloop.core.conversation import JsonObject
from tuneloop.data.audit.blocks import Bars, Block, Columns, Figures, Line, Note, Proof, Rings, Table
from tuneloop.data.audit.card import QUESTIONS
from tuneloop.pages.markdown import plain, table
from tuneloop.pages.numbers import count, number


def markdown(card: JsonObject) -> str:
    """The whole card."""
    rows = card["rows"]
    lost = rows["in"] - rows["kept"]
    lines = [
        "# Data card",
        "",
        f"{count(rows['in'])} rows in = {count(rows['kept'])} kept + {count(lost)} dropped; "
        f"{count(rows['repaired'])} of the kept were repaired. dropped.jsonl lists each dropped row with its reason.",
        "",
        *table(["split", "rows"], [[name, count(size)] for name, size in card["splits"].items()], [False, True]),
        "",
        "## Findings",
        "",
        *(_finding(found) for found in card["findings"]),
    ]
    for question in QUESTIONS:
        section = question.section(card)
        if section is not None:
            lines += ["", f"## {question.title}", "", question.about]
            for block in question.show(section):
                lines += ["", *_lines(block)]
    if card["not_checked"]:
        titles = {question.name: question.title for question in QUESTIONS}
        lines += ["", "## Not checked", ""]
        lines += [f"- {titles[name]}: {plain(why)}" for name, why in card["not_checked"].items()]
    return "\n".join(lines) + "\n"


def _finding(found: JsonObject) -> str:
    advice = f" Next: {plain(found['next'])}." if found.get("next") else ""
    return f"- **{found['level']}** {plain(found['code'])}: {plain(found['message'])}.{advice}"


def _lines(block: Block) -> list[str]:
    match block:
        case Figures(pairs):
            return [f"- {plain(label)}: {plain(value)}" for label, value in pairs]
        case Proof(lines):
            return [f"- {'✓' if holds else '✗'} {plain(claim)} ({plain(checked)})" for holds, claim, checked in lines]
        case Note(text):
            return [plain(text)]
        case Table():
            right = [index >= block.text for index in range(len(block.head))]
            note = ["", plain(block.note)] if block.note else []
            return [*_title(block.title), *table(block.head, block.rows, right), *note]
        case _:
            return [*_title(block.title), *_drawn(block)]


def _drawn(block: Columns | Bars | Line | Rings) -> list[str]:
    match block:
        case Columns():
            head = [f"{block.unit} from", *(name for name, _ in block.series)]
            rows = [
                [label, *(_size(values[place]) for _, values in block.series)]
                for place, label in enumerate(block.labels)
            ]
        case Bars():
            head = [block.head or "", *block.parts, "share"]
            rows = [[name, *(_size(value) for value in values), note] for name, values, note in block.rows]
        case Line():
            head = [block.x, block.y]
            rows = [[_size(x), _size(y)] for x, y in block.points[:: max(1, len(block.points) // 10)]]
        case Rings():
            head = [block.head[0], "rows", block.head[1]]
            rows = [
                [name, count(size), ", ".join(f"{child} {count(part)}" for child, part in children)]
                for name, size, children in block.tree
            ]
    return table(head, rows, [False, *[True] * (len(head) - 1)])


def _title(title: str) -> list[str]:
    return [f"### {plain(title)}", ""] if title else []


def _size(value: Any) -> str:
    return count(value) if float(value).is_integer() else number(value)
