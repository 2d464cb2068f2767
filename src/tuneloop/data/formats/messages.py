"""Format `messages`: a list of {role, content} turns, as ChatML, OpenAI fine-tuning and Anthropic write them."""

from __future__ import annotations

from typing import Any

from tuneloop.core.conversation import JsonObject
from tuneloop.data.formats import Format, Parts
from tuneloop.data.turns import read_tools, read_turns, reject_media, rest

COLUMNS = ("messages", "conversations", "conversation")


class Messages(Format):
    """Conversations as `messages: [{role, content}, …]`, with tools, tool calls, reasoning and loss weights.

    Reads roles system, developer, user, assistant, tool, function and text; content as text or as typed parts;
    `tools` or the legacy `functions`; `tool_calls` or the legacy `function_call`; `weight`, `train` or `loss_weight`
    of a message and `weight` of the whole conversation. tuneloop's own train.jsonl is of this format.
    """

    def parse(self, record: JsonObject) -> Parts:
        reject_media(record)
        column = next((name for name in COLUMNS if record.get(name) is not None), "messages")
        turns = read_turns(record.get(column), "role", "content")
        turns.system(record.get("system"))
        turns.scale(record.get("weight"))
        tools = record.get("tools") or record.get("functions")
        meta = rest(record, column, "system", "tools", "functions", "weight", "parallel_tool_calls")
        if "origin" in meta and "id" in meta:  # a row of tuneloop's own: its id is the digest, made anew
            del meta["id"]
        return Parts(tuple(turns.messages), read_tools(tools), meta, tuple(turns.notes))

    def likeness(self, record: JsonObject) -> float:
        for column, sure in zip(COLUMNS, (1.0, 0.9, 0.9), strict=True):
            if _has(record.get(column), "role"):
                return sure
        return 0.0


def _has(turns: Any, key: str) -> bool:
    if isinstance(turns, str):
        return turns.lstrip().startswith("[") and f'"{key}"' in turns
    return isinstance(turns, list) and bool(turns) and isinstance(turns[0], dict) and key in turns[0]
