"""Format `alpaca`: instruction, input, output, with the optional system and history of LLaMA-Factory."""

from __future__ import annotations

from tuneloop.core.conversation import JsonObject, Message
from tuneloop.data.formats import Format, Parts, RowError
from tuneloop.data.turns import read_history, read_tools, reject_media, rest, text_of


class Alpaca(Format):
    """One question as `instruction` and `input` (joined by a line break), one answer as `output`.

    `history` holds earlier rounds [[question, answer], …], whose answers are trained on too; `system` the
    system prompt.
    """

    instruction: str | None = "instruction"
    """The column of the question; null: only `input` is read."""
    input: str | None = "input"
    """The column of what follows the question; null: none is read."""
    output: str = "output"
    """The column of the answer."""
    system: str | None = "system"
    """The column of a system prompt; null: none is read."""
    history: str | None = "history"
    """The column of earlier rounds; null: none are read."""
    tools: str | None = None
    """The column of the tools' JSON schemas; by default none is read."""

    def parse(self, record: JsonObject) -> Parts:
        reject_media(record)
        notes: list[str] = []
        asked = [record.get(column) for column in (self.instruction, self.input) if column is not None]
        prompt = "\n".join(text_of(part, "instruction") for part in asked if part not in (None, ""))
        if not prompt.strip():
            raise RowError("no instruction")
        system = record.get(self.system) if self.system is not None else None
        messages = [Message("system", text_of(system, "system"))] if system else []
        history = record.get(self.history) if self.history is not None else None
        for question, answer in read_history(history) if history else ():
            messages += [Message("user", question), Message("assistant", answer)]
        messages += [Message("user", prompt), Message("assistant", text_of(record.get(self.output), "output", notes))]
        tools = read_tools(record.get(self.tools)) if self.tools is not None else ()
        columns = (self.instruction, self.input, self.output, self.system, self.history, self.tools)
        return Parts(tuple(messages), tools, rest(record, *filter(None, columns)), tuple(notes))

    def likeness(self, record: JsonObject) -> float:
        if {"instruction", "output"} <= record.keys():
            return 1.0 if "input" in record else 0.95
        return 0.0
