"""Format `text`: prose outside any chat, one document per row, for pre-training."""

from __future__ import annotations

import re

from tuneloop.core.conversation import JsonObject, Message
from tuneloop.data.formats import Format, Parts
from tuneloop.data.turns import PROMPTS, RESPONSES, rest, text_of

BESIDE = ("label", "labels", "target", "summary", "class", "category", "sentiment", "标签", "类别")
"""Columns that make a row a task rather than a document: `auto` asks before it trains on the text alone."""
LABELLED = re.compile(r'^"?__label__', re.MULTILINE)
"""How a line of fastText's form begins, in which doccano exports labels too: it is no prose."""


class Text(Format):
    """Documents in the column `text`, or a .txt file whose documents are separated by blank lines.

    All of a document is trained on, as the continued pre-training of a base model needs it.
    """

    def parse(self, record: JsonObject) -> Parts:
        return Parts((Message("text", text_of(record.get("text"), "text"), train=1.0),), meta=rest(record, "text"))

    def likeness(self, record: JsonObject) -> float:
        if not isinstance(record.get("text"), str) or LABELLED.search(record["text"]):
            return 0.0
        others = record.keys() - {"text", "meta", "metadata"}
        if others & {*PROMPTS, *RESPONSES}:  # alpaca files repeat the question and answer in a column `text`
            return 0.2
        if any(str(name).lower() in BESIDE for name in others):
            return 0.5
        structured = any(isinstance(record[name], (list, dict)) for name in others)
        return 0.2 if structured else (1.0 if not others else 0.8)
