"""Format `messages`: a list of {role, content} turns, as ChatML, OpenAI fine-tuning and Anthropic write them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from tuneloop.core.conversation import JsonObject, Message
from tuneloop.data.formats import Parts
from tuneloop.data.formats._chat import Chat
from tuneloop.data.formats.preference import ANSWERS


class Messages(Chat):
    """Conversations as `messages: [{role, content}, …]`, with tools, tool calls, reasoning and loss weights.

    Reads roles system, developer, user, assistant, tool, function and text; content as text or as typed parts;
    `tools` or the legacy `functions`; `tool_calls` or the legacy `function_call`; `weight`, `train` or `loss_weight`
    of a message and `weight` of the whole conversation. tuneloop's own train.jsonl is of this format.
    """

    usual: ClassVar = ("messages", "conversations", "conversation")

    role: str = "role"
    """The key of a turn that names its role."""
    content: str = "content"
    """The key of a turn that holds its text."""

    def parse(self, record: JsonObject) -> Parts:
        if self.tools == "tools" and "functions" in record:
            record = {**record, "tools": record.get("tools") or record["functions"]}
            del record["functions"]
        rejected: tuple[Message, ...] = ()
        if isinstance(record.get("rejected"), list):  # as tuneloop writes rows of the format preference
            rejected = tuple(self.turns(record["rejected"]).messages)
            record = {key: value for key, value in record.items() if key != "rejected"}
        parts = replace(self.converse(record), rejected=rejected)
        parts.meta.pop("parallel_tool_calls", None)
        if "origin" in parts.meta and "id" in parts.meta:  # a row of tuneloop's own: its id is the digest, made anew
            del parts.meta["id"]
        return parts

    def likeness(self, record: JsonObject) -> float:
        if record.keys() >= {*ANSWERS}:
            return 0.5
        for column, sure in zip(self.usual, (1.0, 0.9, 0.9), strict=True):
            if _has(record.get(column), "role"):
                return sure
        return 0.0


def _has(turns: Any, key: str) -> bool:
    if isinstance(turns, str):
        return turns.lstrip().startswith("[") and f'"{key}"' in turns
    return isinstance(turns, list) and bool(turns) and isinstance(turns[0], dict) and key in turns[0]
