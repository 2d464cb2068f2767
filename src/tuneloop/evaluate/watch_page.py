"""The overfitting watch as the report's page shows it: warnings of the training, memorisation, canaries, answers."""

from __future__ import annotations

from typing import Any

from tuneloop.evaluate.report import Context
from tuneloop.pages.answers import changes
from tuneloop.pages.numbers import interval, number, probability, share

Json = dict[str, Any]
SHOWN = 8  # pieces


def view(report: Json, context: Context) -> Json | None:
    """What _watch.html.jinja shows; None where nothing was watched."""
    memorised, watch = report.get("memorisation"), context.watch
    answers = changes(context.answers)
    if not (memorised or watch.get("findings") or watch.get("canaries") or answers):
        return None
    return {
        "findings": [one["text"] for one in watch.get("findings", ())],
        "memorised": _memorised(memorised) if memorised else None,
        "canaries": _canaries(watch.get("canaries")),
        "changes": answers,
    }


def _memorised(value: Json) -> Json:
    """A line for references and each contestant, and the longest pieces that the tuned model repeats."""
    rows: list[Json] = []
    for who, found in value["shares"].items():
        excess = value["excess"].get(who)
        known = found["value"] is not None
        rows.append({
            "who": f"answers of {who}" if excess else "references",
            "share": share(found["value"]) if known else "–",
            "ends": " … ".join(share(found[end]) for end in ("low", "high")) if known else "",
            "n": found["n"],
            "excess": number(excess["value"], True) if excess else "–",
            "excess_ends": interval(excess, True) if excess else "",
            "p": probability(excess["p"]) if excess else "–",
            "worse": bool(excess and excess["low"] is not None and excess["low"] > 0),
        })  # fmt: skip
    who = "tuned" if "tuned" in value["longest"] else next(iter(value["longest"]))
    return {**value, "rows": rows, "who": who, "longest": value["longest"][who][:SHOWN]}


def _canaries(value: Json | None) -> Json | None:
    if not value:
        return None
    return {**value, "exposure": number(value["exposure"]), "p": probability(value["p"])}
