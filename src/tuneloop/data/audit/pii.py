"""Personal data and secrets in the sample, by the rules of `guard`; no value is ever written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tuneloop.core.conversation import JsonObject
from tuneloop.data.audit.blocks import Block, Note, Table
from tuneloop.data.audit.question import Question
from tuneloop.data.audit.reading import Reading, Row
from tuneloop.data.findings import Level, finding
from tuneloop.guard.digits import shape
from tuneloop.guard.pii import Found, find, may_hold_each
from tuneloop.guard.rules import RULES
from tuneloop.pages.numbers import count, share

GRAVE = frozenset("bank_card cn_id medical_record passport secret_key url_credentials us_ssn".split())
"""Kinds that identify a person or open a door; a model that learned one may say it."""
EXAMPLES = 3
STEP = "pii"
LEFT_BY_STEP = (
    "the step pii leaves own val and test files as they are, and kinds that it does not name: see its options"
)


class Pii(Question):
    """Personal data by kind; strong finds have a checksum, a valid range or a keyword, weak ones are hints."""

    name = "pii"
    title = "Personal data"
    about = (
        "What the rules of tuneloop.guard find; they cannot find everything, so none found is no proof that none is "
        "there. Examples show the shape only: 0 for digits, a and A for letters, 某 for other letters."
    )

    def measure(self, data: Reading) -> JsonObject | None:
        if not data.rows:
            return None
        counted: dict[str, Counter[str]] = {}
        examples: dict[str, list[JsonObject]] = {}
        rows: Counter[str] = Counter()
        texts = [
            "\n".join([row.prompt, row.answer, *(one.content for one in row.example.rejected)]) for row in data.rows
        ]
        for row, text, doubt in zip(data.rows, texts, may_hold_each(texts).tolist(), strict=True):
            found = find(text) if doubt else []
            for one in found:
                counted.setdefault(one.kind, Counter())[one.strength] += 1
                shown = examples.setdefault(one.kind, [])
                if one.strength == "strong" and len(shown) < EXAMPLES:
                    shown.append(_example(one, row))
            rows.update({one.kind for one in found if one.strength == "strong"})
            rows["any"] += any(one.strength == "strong" for one in found)
        return {
            "rows": len(data.rows),
            "whole": data.whole,
            "looked_for": RULES.names(),
            "step": [options["action"] for options in data.facts.options_of(STEP)],
            "rows_with": rows["any"],
            "kinds": {
                kind: {
                    "strong": counts["strong"],
                    "weak": counts["weak"],
                    "rows": rows[kind],
                    "examples": examples[kind],
                }
                for kind, counts in sorted(counted.items(), key=lambda item: (-item[1]["strong"], item[0]))
            },
        }

    def judge(self, section: JsonObject) -> list[JsonObject]:
        strong = {kind: part for kind, part in section["kinds"].items() if part["strong"]}
        grave = {kind: part for kind, part in strong.items() if kind in GRAVE}
        light = {kind: part for kind, part in strong.items() if kind not in GRAVE}
        where = "" if section["whole"] else f" in a sample of {count(section['rows'])} rows"
        found: list[JsonObject] = []
        levels: tuple[tuple[Level, str, JsonObject], ...] = (("ERROR", "pii", grave), ("WARN", "pii_contact", light))
        for level, code, kinds in levels:
            if kinds:
                total = sum(part["strong"] for part in kinds.values())
                text = ", ".join(f"{count(part['strong'])} {kind}" for kind, part in kinds.items()) + where
                places = [one for part in kinds.values() for one in part["examples"]][:5]
                advice = LEFT_BY_STEP if section["step"] else "add the step pii (mask, surrogate or drop) to data.steps"
                found.append(finding(level, code, total, text, next=advice, examples=places))
        return found

    def show(self, section: JsonObject) -> Sequence[Block]:
        ran = ", ".join(section["step"])
        step = f"The step pii ({ran}) went over the sources before." if ran else "The step pii did not run."
        looked = f"Looked for {len(section['looked_for'])} kinds in {count(section['rows'])} rows"
        if not section["kinds"]:
            return [Note(f"{looked}: none found. {step}")]
        lines = [
            [kind, ", ".join(one["shape"] for one in part["examples"]) or "–", count(part["rows"]),
             share(part["rows"], section["rows"]), count(part["strong"]), count(part["weak"])]
            for kind, part in section["kinds"].items()
        ]  # fmt: skip
        head = ["kind", "shape of some", "rows", "of all", "strong", "hints"]
        return [Note(f"{looked}. {step}"), Table(head, lines, text=2)]


def _example(found: Found, row: Row) -> JsonObject:
    return {"kind": found.kind, "shape": shape(found.text), **row.place}
