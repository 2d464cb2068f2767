"""Rows that contradict one another: the same prompt with different labels, or with different answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tuneloop.core.conversation import JsonObject
from tuneloop.data.audit.blocks import Block, Figures, Table
from tuneloop.data.audit.question import Question
from tuneloop.data.audit.quote import quoted
from tuneloop.data.audit.reading import Reading, Row
from tuneloop.data.findings import finding
from tuneloop.pages.numbers import count, share
from tuneloop.texts.words import normalise, prompt_key

STEP = "label_conflicts"
MANY = 0.01  # of the rows
EXAMPLES = 5
CUT = 160  # characters of a prompt or answer shown
SHORT = 5  # words: answers this short are verdicts, of which only one can be right


class Conflicts(Question):
    """Equal prompts in the sample whose labels or answers differ, and what the step `label_conflicts` found."""

    name = "conflicts"
    title = "Conflicts"
    about = (
        "The same prompt twice with another label, or with another short answer, cannot both be right; longer answers "
        "may well differ. Prompts that are nearly the same are compared by the step label_conflicts only."
    )

    def measure(self, data: Reading) -> JsonObject | None:
        if not data.rows:
            return None
        asked: dict[bytes, list[Row]] = {}
        for row in data.rows:
            if row.said:
                asked.setdefault(prompt_key(row.example), []).append(row)
        repeated = [rows for rows in asked.values() if len(rows) > 1]
        labels = [rows for rows in repeated if len({row.label for row in rows} - {None}) > 1]
        answers = [rows for rows in repeated if len({normalise(row.answer) for row in rows}) > 1]
        short = [
            rows for rows in answers if all(len(row.answer.split()) <= SHORT and len(row.answer) <= 30 for row in rows)
        ]
        shown = [*labels, *(rows for rows in short if rows not in labels)]
        return {
            "rows": len(data.rows),
            "repeated_prompts": len(repeated),
            "other_labels": len(labels),
            "other_short_answers": len(short),
            "other_answers": len(answers),
            "conflicting_rows": sum(len(rows) for rows in shown),
            "examples": [_example(rows) for rows in shown[:EXAMPLES]],
            "step": [options["policy"] for options in data.facts.options_of(STEP)],
            "reported": sum(found["count"] for found in data.facts.findings if found["code"] == STEP),
            "dropped": sum(rows for (_, step, _), rows in data.facts.dropped.items() if step == STEP),
        }

    def judge(self, section: JsonObject) -> list[JsonObject]:
        rows = section["conflicting_rows"]
        if not rows or section["reported"]:  # the step has said it, and it sees more
            return []
        kinds = (("label", section["other_labels"]), ("short answer", section["other_short_answers"]))
        which = " or ".join(f"another {name} ({count(prompts)} prompts)" for name, prompts in kinds if prompts)
        text = f"{count(rows)} rows ask the same as another one and have {which}"
        level = "WARN" if rows > MANY * section["rows"] else "INFO"
        advice = "add the step label_conflicts (report, drop or majority), or settle them by hand"
        return [finding(level, "conflicts_left", rows, text, next=advice, examples=section["examples"])]

    def show(self, section: JsonObject) -> Sequence[Block]:
        ran = section["step"]
        figures = [
            ("rows compared", count(section["rows"])),
            ("prompts asked twice or more", count(section["repeated_prompts"])),
            ("with other labels", count(section["other_labels"])),
            ("with other short answers", count(section["other_short_answers"])),
            ("with other answers of any length", count(section["other_answers"])),
            ("rows in conflict", share(section["conflicting_rows"], section["rows"])),
            ("reported by the step", count(section["reported"]) if ran else "not run"),
            *([("dropped by it", count(section["dropped"]))] if ran else []),
        ]
        rows = [
            [one["prompt"], side["said"], f"{side['source']}, row {side['row']}"]
            for one in section["examples"]
            for side in one["rows"]
        ]
        table = Table(["prompt", "label or answer", "where"], rows, title="Some of them", text=3)
        return [Figures(figures), *([table] if rows else [])]


def _example(rows: Sequence[Row]) -> dict[str, Any]:
    """A prompt with two rows that answer it differently."""
    by_label = len({row.label for row in rows} - {None}) > 1
    said = [(row.label or "–") if by_label else row.answer for row in rows]
    other = next(index for index, words in enumerate(said) if normalise(words) != normalise(said[0]))
    sides = [{**rows[index].place, "said": quoted(said[index], CUT)} for index in (0, other)]
    return {"prompt": quoted(rows[0].said, CUT), "rows": sides}
