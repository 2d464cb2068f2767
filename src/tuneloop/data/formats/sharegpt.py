"""Format `sharegpt`: a list of {from, value} turns, and the variants of it that are found in the wild."""

from __future__ import annotations

from typing import Any, ClassVar

from tuneloop.core.conversation import JsonObject
from tuneloop.data.formats import Parts, RowError
from tuneloop.data.formats._chat import Chat
from tuneloop.data.formats.preference import ANSWERS
from tuneloop.data.turns import Turns, from_json_text


class Sharegpt(Chat):
    """Conversations as `conversations: [{from, value}, …]` with `system` and `tools` beside them.

    Reads human/user, gpt/assistant/chatgpt/bing, function_call, observation/tool, system; an answer's text and its
    calls, written as turns of their own, become one message. Also ms-swift's `conversation: [{human, assistant}, …]`.
    """

    usual: ClassVar = ("conversations", "conversation", "messages")

    role: str = "from"
    """The key of a turn that names its role."""
    content: str = "value"
    """The key of a turn that holds its text."""

    def parse(self, record: JsonObject) -> Parts:
        return self.converse(record)

    def turns(self, conversation: Any) -> Turns:
        turns = from_json_text(conversation, "the conversation")
        return _read_pairs(turns) if _pairs(turns) else super().turns(turns)

    def likeness(self, record: JsonObject) -> float:
        if record.keys() >= {*ANSWERS}:
            return 0.5
        for column, sure in zip(self.usual, (1.0, 0.9, 0.9), strict=True):
            turns = record.get(column)
            if isinstance(turns, str) and turns.lstrip().startswith("[") and '"from"' in turns:
                return sure
            if isinstance(turns, list) and turns and isinstance(turns[0], dict):
                if "from" in turns[0] and "value" in turns[0]:
                    return sure
                if _pairs(turns):
                    return 0.9
        return 0.0


def _pairs(turns: Any) -> bool:
    first = turns[0] if isinstance(turns, list) and turns else None
    return isinstance(first, dict) and {"human", "assistant"} <= first.keys()


def _read_pairs(pairs: list[Any]) -> Turns:
    turns = Turns()
    for number, pair in enumerate(pairs):
        if not isinstance(pair, dict) or not {"human", "assistant"} <= pair.keys():
            raise RowError(f"round {number} has no 'human' and 'assistant'", round=pair)
        turns.add("user", {}, pair["human"])
        turns.add("assistant", pair, pair["assistant"])
    return turns
