"""Rows that stand in evaluation files, as the step `contamination` found them."""

from __future__ import annotations

from collections.abc import Sequence

from tuneloop.core.conversation import JsonObject
from tuneloop.data.audit.blocks import Block, Note, Table
from tuneloop.data.audit.question import Question
from tuneloop.data.audit.reading import Reading
from tuneloop.pages.numbers import count

STEP = "contamination"


class Contamination(Question):
    """What the step dropped or reported."""

    name = "contamination"
    title = "Contamination"
    about = "Training rows that hold text of an evaluation file. Each stands in dropped.jsonl with the span."

    def measure(self, data: Reading) -> JsonObject | None:
        reasons = [
            {"source": source, "reason": reason, "rows": rows}
            for (source, step, reason), rows in data.facts.dropped.most_common()
            if step == STEP
        ]
        findings = [found for found in data.facts.findings if str(found["code"]).startswith(STEP)]
        return {"dropped": reasons[:20], "findings": findings} if reasons or findings else None

    def show(self, section: JsonObject) -> Sequence[Block]:
        lines = [[one["source"], one["reason"], count(one["rows"])] for one in section["dropped"]]
        notes = [Note(f"{found['level']} {found['code']}: {found['message']}") for found in section["findings"]]
        return [*notes, *([Table(["source", "reason", "rows"], lines, text=2)] if lines else [])]
