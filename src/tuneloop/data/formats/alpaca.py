"""Format `alpaca`: instruction, input, output, with the optional system and history of LLaMA-Factory."""

from __future__ import annotations

from functools import cached_property

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
        asked = [part for column in self._asked if (part := record.get(column)) is not None and part != ""]
        prompt = asked[0] if len(asked) == 1 else None
        if type(prompt) is not str:
            prompt = "\n".join([text_of(part, "instruction") for part in asked])
        if not prompt or prompt.isspace():
            raise RowError("no instruction")
        system = record.get(self.system) if self.system is not None else None
        messages = [Message("system", text_of(system, "system"))] if system else []
        history = record.get(self.history) if self.history is not None else None
        for question, answer in read_history(history) if history else ():
            messages += [Message("user", question), Message("assistant", answer)]
        messages += [Message("user", prompt), Message("assistant", text_of(record.get(self.output), "output", notes))]
        tools = read_tools(record.get(self.tools)) if self.tools is not None else ()
        meta = {} if record.keys() <= self._columns else rest(record, *self._columns)
        return Parts(tuple(messages), tools, meta, tuple(notes))

    @cached_property
    def _asked(self) -> list[str]:
        return [column for column in (self.instruction, self.input) if column is not None]

    @cached_property
    def _columns(self) -> frozenset[str]:
        columns = (self.instruction, self.input, self.output, self.system, self.history, self.tools)
        return frozenset(column for column in columns if column)

    def likeness(self, record: JsonObject) -> float:
        if {"instruction", "output"} <= record.keys():
            return 1.0 if "input" in record else 0.95
        return 0.0
