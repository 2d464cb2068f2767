"""What the conversations are made of: roles, turns, system prompts, tools."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tuneloop.core.conversation import JsonObject
from tuneloop.data.audit.blocks import Block, Figures, Table
from tuneloop.data.audit.question import Question
from tuneloop.data.audit.quote import quoted
from tuneloop.data.audit.reading import Reading
from tuneloop.data.findings import finding
from tuneloop.pages.numbers import count, share

CUT = 120  # characters of an answer shown


class Conversations(Question):
    """Roles and turns of the sample, and whether the answers differ at all."""

    name = "conversations"
    title = "Conversations"
    about = "How many turns a row has, who speaks, and what is trained."

    def measure(self, data: Reading) -> JsonObject | None:
        rows = data.rows
        if not rows:
            return None
        roles = Counter(message.role for row in rows for message in row.example.messages)
        users = [sum(message.role == "user" for message in row.example.messages) for row in rows]
        systems = Counter(row.prompt.removesuffix(row.said) for row in rows)
        answers = Counter(row.answer for row in rows)
        common, times = answers.most_common(1)[0]
        return {
            "rows": len(rows),
            "roles": dict(roles.most_common()),
            "with_system": len(rows) - systems[""],
            "system_prompts": len(systems) - ("" in systems),
            "several_turns": sum(number > 1 for number in users),
            "most_turns": max(users),
            "with_tools": sum(bool(row.example.tools) for row in rows),
            "with_calls": sum(any(message.tool_calls for message in row.example.messages) for row in rows),
            "with_reasoning": sum(any(message.reasoning for message in row.example.messages) for row in rows),
            "answers": len(answers),
            "most_common_answer": {"text": quoted(common, CUT), "rows": times},
        }

    def judge(self, section: JsonObject) -> list[JsonObject]:
        rows, roles = section["rows"], section["roles"]
        text = f"messages by role: {', '.join(f'{name} {count(number)}' for name, number in roles.items())}"
        found = [finding("INFO", "roles", sum(roles.values()), text)]
        if rows > 1 and section["answers"] == 1:
            said = section["most_common_answer"]["text"][:60]
            text = f"all {count(rows)} answers are the same: {said!r}"
            advice = "check the source's columns and template: does it compare text with a number?"
            found.append(finding("WARN", "one_answer", rows, text, next=advice))
        return found

    def show(self, section: JsonObject) -> Sequence[Block]:
        rows = section["rows"]
        figures = [
            ("several turns", share(section["several_turns"], rows)),
            ("with a system prompt", share(section["with_system"], rows)),
            ("with tools", share(section["with_tools"], rows)),
            ("with tool calls", share(section["with_calls"], rows)),
            ("with reasoning", share(section["with_reasoning"], rows)),
            ("different answers", count(section["answers"])),
        ]
        total = sum(section["roles"].values())
        lines = [[name, count(number), share(number, total)] for name, number in section["roles"].items()]
        return [Figures(figures), Table(["role", "messages", "share"], lines)]
