"""Tool calls out of an answer that is still being written: what may be part of a call is held back till the end."""

from __future__ import annotations

import json
import secrets

from tuneloop.core.conversation import ToolCall
from tuneloop.render.tool_calls import read_tool_calls

MARKS = ("<tool_call", "<function", "[TOOL_CALLS]", "<|python_tag|>", "```")
"""What calls begin with, in the forms that `render.tool_calls` reads; and an answer that begins as JSON may be one."""


class CallReader:
    """Takes an answer piece by piece. What is told and what is left at the end make the text beside the calls."""

    def __init__(self) -> None:
        self._held, self._begun = "", False

    def take(self, text: str) -> str:
        """What of the text so far can be told: no part of a call."""
        self._held += text
        if not self._begun and self._held.lstrip()[:1] in ("", "{", "["):
            return ""
        self._begun = True
        cut = _mark(self._held)
        told, self._held = self._held[:cut], self._held[cut:]
        return told

    def end(self) -> tuple[str, tuple[ToolCall, ...]]:
        """The rest of the text, and the calls."""
        read = read_tool_calls(self._held)
        return (read.text, read.calls) if read.calls else (self._held, ())


def split(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """A whole answer's text and calls: the same as piece by piece."""
    reader = CallReader()
    told = reader.take(text)
    rest, calls = reader.end()
    return told + rest, calls


def _mark(text: str) -> int:
    """Where the first mark begins, or what may become one."""
    found = [place for mark in MARKS if (place := text.find(mark)) >= 0]
    longest = max(map(len, MARKS))
    for place in range(max(0, len(text) - longest), len(text)):
        if any(mark.startswith(text[place:]) for mark in MARKS):
            found.append(place)
            break
    return min(found, default=len(text))


def call_id(call: ToolCall) -> str:
    """The model's own id, or a new one."""
    return call.id or f"call_{secrets.token_hex(12)}"


def arguments_of(call: ToolCall) -> str:
    """The arguments as OpenAI writes them: JSON as text."""
    return call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments, ensure_ascii=False)
