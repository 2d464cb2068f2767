"""Whether rows stand in evaluation files: what the step `contamination` was set against, and what it found."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from tuneloop.core.conversation import JsonObject
from tuneloop.data.audit.blocks import Block, Proof, Table
from tuneloop.data.audit.question import Question
from tuneloop.data.audit.reading import Reading
from tuneloop.pages.numbers import count

STEP = "contamination"


class Contamination(Question):
    """What the step compared and dropped."""

    name = "contamination"
    title = "Contamination"
    about = (
        "Rows that hold text of an evaluation file are dropped; dropped.jsonl shows the span. Own val and test files "
        "are not compared."
    )
    unchecked = "the recipe has no step contamination"

    def measure(self, data: Reading) -> JsonObject | None:
        ran = data.facts.options_of(STEP)
        if not ran:
            return None
        divided = [source.path for source in data.facts.sources if source.goes_to in ("any", "train")]
        kept = data.table.filter(pl.col("source").is_in(divided)).height
        reasons = [
            {"source": source, "reason": reason, "rows": rows}
            for (source, step, reason), rows in data.facts.dropped.most_common()
            if step == STEP
        ]
        found = sum(one["rows"] for one in reasons)
        return {"checks": ran, "rows": kept + found, "found": found, "dropped": reasons[:20]}

    def show(self, section: JsonObject) -> Sequence[Block]:
        found = section["found"]
        claims = [
            (True, f"no row that is left has text in common with {', '.join(check['against'])}",
             f"{count(section['rows'])} rows checked, {count(found) if found else 'none'} found and dropped; "
             f"{check['words']} words or {check['characters']} Chinese characters in a row")
            for check in section["checks"]
        ]  # fmt: skip
        lines = [[one["source"], one["reason"], count(one["rows"])] for one in section["dropped"]]
        return [Proof(claims), *([Table(["source", "reason", "rows"], lines, text=2)] if lines else [])]
