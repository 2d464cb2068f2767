"""card.html: one self-contained page without scripts. Prepares what the template shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from markupsafe import Markup

from tuneloop.core.conversation import JsonObject
from tuneloop.data.audit.blocks import Bars, Block, Columns, Figures, Line, Note, Proof, Rings, Table
from tuneloop.data.audit.card import QUESTIONS
from tuneloop.pages import charts, drawing
from tuneloop.pages.page import render

PLACES = 6  # of rows behind a finding; all that were kept stand in card.json


def html(card: JsonObject, title: str) -> str:
    """The page, inside the frame that all pages share."""
    rows = card["rows"]
    total = max(1, rows["in"])
    levels = [found["level"] for found in card["findings"]]
    sections = []
    for question in QUESTIONS:
        section = question.section(card)
        if section is not None:
            alarms = [_finding(found) for found in question.judge(section) if found["level"] != "INFO"]
            blocks = [_block(block) for block in question.show(section)]
            sections.append({"name": question.name, "title": question.title, "about": question.about,
                             "alarms": alarms, "groups": _grouped(blocks)})  # fmt: skip
    return render(
        "tuneloop.data.audit",
        "card.html.jinja",
        title=title,
        card=card,
        kept_share=100 * rows["kept"] / total,
        dropped=[{"step": step, "share": 100 * lost / total} for step, lost in rows["dropped"].items()],
        errors=levels.count("ERROR"),
        warnings=levels.count("WARN"),
        findings=[_finding(found) for found in card["findings"]],
        languages=[(name, sum(splits.values())) for name, splits in card.get("languages", {}).get("rows", {}).items()],
        proof=_proof(card),
        sections=sections,
        not_checked=[(q.title, card["not_checked"][q.name]) for q in QUESTIONS if q.name in card["not_checked"]],
    )


def _finding(found: JsonObject) -> dict[str, Any]:
    """A finding with the places of its examples in words."""
    places = list(islice(_places(found.get("examples", [])), PLACES))
    return {
        **{key: found[key] for key in ("level", "code", "message")},
        "next": found.get("next", ""),
        "places": places,
    }


def _places(value: Any) -> Iterator[str]:
    """Rows named anywhere in a finding's examples; steps nest them as their kind of finding needs."""
    if isinstance(value, list):
        for one in value:
            yield from _places(one)
    elif isinstance(value, dict):
        place = value.get("origin", value)
        if isinstance(place, dict) and {"source", "row"} <= place.keys():
            rest = "".join(f", {value[key]}" for key in ("split", "kind", "shape") if key in value)
            yield f"{place['source']}, row {place['row']}{rest}"
        else:
            for one in value.values():
                yield from _places(one)


def _proof(card: JsonObject) -> str:
    """holds, nearly, broken or unchecked."""
    if "duplicates" not in card:
        return "unchecked"
    leaks = [found for found in card["findings"] if "leak" in found["code"]]
    return "holds" if not leaks else "broken" if any(found["level"] == "ERROR" for found in leaks) else "nearly"


def _block(block: Block) -> dict[str, Any]:
    """A block as the template shows it: its kind, and for drawings the picture and its key."""
    match block:
        case Table(beside=True):
            return {"kind": "chart", "title": "", "sheet": block}
        case Figures() | Table() | Proof() | Note():
            return {"kind": type(block).__name__.lower(), "block": block}
        case Columns():
            picture = charts.columns(block.labels, block.series, block.unit, block.mark)
            return _chart(block.title, picture, [name for name, _ in block.series])
        case Bars():
            return _chart(block.title, charts.bars(block.parts, block.rows), block.parts)
        case Line():
            picture = drawing.curves([(block.y, "train", block.points)])
            return _chart(f"{block.title} ({block.y} by number of {block.x})", picture, [])
        case Rings():
            return _chart(block.title, charts.rings(block.tree), [])


def _chart(title: str, picture: Markup, parts: Sequence[str]) -> dict[str, Any]:
    return {
        "kind": "chart",
        "title": title,
        "picture": picture,
        "sheet": None,
        "key": list(parts) if len(parts) > 1 else [],
    }


def _grouped(blocks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Charts that follow one another stand side by side."""
    groups: list[dict[str, Any]] = []
    for block in blocks:
        if block["kind"] == "chart" and groups and groups[-1]["kind"] == "chart":
            groups[-1]["blocks"].append(block)
        else:
            groups.append({"kind": block["kind"], "blocks": [block]})
    return groups
