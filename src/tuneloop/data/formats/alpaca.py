"""Format `alpaca`: instruction, input, output, with the optional system and history of LLaMA-Factory."""

from __future__ import annotations

from tuneloop.core.conversation import JsonObject, Message
from tuneloop.data.formats import Format, Parts, RowError
from tuneloop.data.turns import read_history, reject_media, rest, text_of


class Alpaca(Format):
    """One question as `instruction` and `input` (joined by a line break), one answer as `output`.

    `history` holds earlier rounds [[question, answer], …], whose answers are trained on too; `system` the
    system prompt.
    """

    def parse(self, record: JsonObject) -> Parts:
        reject_media(record)
        notes: list[str] = []
        asked = [record.get("instruction"), record.get("input")]
        prompt = "\n".join(text_of(part, "instruction") for part in asked if part not in (None, ""))
        if not prompt.strip():
            raise RowError("no instruction")
        messages = [Message("system", text_of(record["system"], "system"))] if record.get("system") else []
        for question, answer in read_history(record.get("history")):
            messages += [Message("user", question), Message("assistant", answer)]
        messages += [Message("user", prompt), Message("assistant", text_of(record.get("output"), "output", notes))]
        meta = rest(record, "instruction", "input", "output", "system", "history")
        return Parts(tuple(messages), meta=meta, notes=tuple(notes))

    def likeness(self, record: JsonObject) -> float:
        if {"instruction", "output"} <= record.keys():
            return 1.0 if "input" in record else 0.95
        return 0.0
