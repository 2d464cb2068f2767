"""What an annotated item asks: its prompt among the fields that raters saw, and the answer that may stand beside it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import regex

from tuneloop.core.conversation import JsonObject, Message
from tuneloop.data.formats import RowError
from tuneloop.data.formats.prompt_response import CONTEXT
from tuneloop.data.turns import PROMPTS, RESPONSES, from_json_text, read_history, read_turns, text_of

TEXTS = (
    "text", "document", "sentence", "content", "passage", "article", "review", "utterance",
    "文本", "正文", "句子", "原文", "内容", "文章",
)  # fmt: skip
"""Usual names of a text that is annotated; a field of PROMPTS goes before them."""
CONVERSATIONS = ("messages", "conversations", "conversation", "chat", "dialogue", "dialog", "对话")
TURNS = (("role", "content"), ("from", "value"))
Units = Literal["utf-16", "characters", "graphemes"]
"""What a place in a text counts: UTF-16 units, as browsers do (an emoji is two); Python's characters (a flag is two);
or what a reader sees as one (grapheme clusters)."""
_FILE = re.compile(
    r"\S+\.(png|jpe?g|gif|bmp|webp|tiff?|wav|mp3|flac|ogg|m4a|mp4|avi|mov|webm|pdf|html?|txt)(\?\S*)?", re.IGNORECASE
)


@dataclass(frozen=True)
class Asked:
    """The messages up to the answer, and the fields that they were made of.

    `answer` is the assistant turn that ends a conversation of the data; `document` the text that spans are cut from.
    """

    messages: tuple[Message, ...] = ()
    fields: tuple[str, ...] = ()
    answer: Message | None = None
    document: str = ""
    notes: tuple[str, ...] = ()

    def cut(self, span: Mapping[str, Any]) -> str:
        """The text of a span, from the document where the export gives only its place. Raises RowError."""
        return span["text"] if "text" in span else cut(self.document, span.get("start"), span.get("end"))


def cut(text: str, start: Any, end: Any, units: Units = "utf-16") -> str:
    """text[start:end] in those units. Raises RowError for a place that is none in this text."""
    parts: Sequence[str] | bytes = text
    size = 1
    if units == "utf-16" and not text.isascii():
        parts, size = text.encode("utf-16-le", "surrogatepass"), 2
    elif units == "graphemes":
        parts = regex.findall(r"\X", text)
    length = len(parts) // size
    if not (isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= length):
        raise RowError("a span lies outside the text", start=start, end=end, length=length)
    found = parts[size * start : size * end]
    try:
        return found.decode("utf-16-le") if isinstance(found, bytes) else "".join(found)
    except UnicodeDecodeError as error:
        raise RowError("a span begins or ends inside a character: it counts in other units", start=start) from error


def ask(
    data: JsonObject, names: Sequence[str], instruction: str, value: Callable[[str], Any], needed: bool = True
) -> Asked:
    """The prompt from the named fields, or from those that look like one.

    `value` gives what raters wrote under a name that is no field. Raises RowError where it is not clear what is asked.
    """
    names = list(names) or _automatic(data, needed)
    if not names:
        return Asked()
    notes: list[str] = []
    if len(names) == 1 and turn_keys(data.get(names[0])) is not None:
        return _conversation(data, names[0], instruction)
    parts: list[str] = []
    for name in names:
        said = data.get(name) if name in data else value(name)
        if said is None and name not in data:
            raise RowError(f"no field or answered question '{name}' for the prompt", fields=list(data))
        if said not in (None, ""):
            parts.append(text_of(said, name, notes))
    text = "\n".join(parts)
    if not text.strip():
        raise RowError(f"the prompt is empty ({', '.join(names)})")
    if _FILE.fullmatch(text.strip()):
        raise RowError("the prompt is the address of a file: tuneloop trains on text only so far", prompt=text)
    fields, messages = list(names), list[Message]()
    if isinstance(data.get("system"), str) and data["system"] and "system" not in names:
        messages.append(Message("system", data["system"]))
        fields.append("system")
    if isinstance(data.get("history"), list) and "history" not in names:
        for question, answer in read_history(data["history"]):
            messages += [Message("user", question), Message("assistant", answer)]
        fields.append("history")
    messages.append(Message("user", f"{instruction}\n{text}" if instruction else text))
    return Asked(tuple(messages), tuple(fields), None, text, tuple(notes))


def find_responses(data: JsonObject) -> list[str]:
    """The fields with a usual name of an answer."""
    lower = _by_name(data)
    return [lower[name] for name in RESPONSES if name in lower]


def _by_name(data: JsonObject) -> dict[str, str]:
    return {str(key).strip().lower(): key for key in reversed(data) if data[key] is not None}


def _automatic(data: JsonObject, needed: bool) -> list[str]:
    lower = _by_name(data)
    talks = [lower[name] for name in CONVERSATIONS if name in lower and turn_keys(data[lower[name]]) is not None]
    if talks:
        return talks[:1]
    asked = [name for name in PROMPTS if name in lower]
    if {"instruction", "input"} == set(asked):
        return [lower["instruction"], lower["input"]]
    found = asked or [name for name in TEXTS if name in lower]
    beside = [name for name in CONTEXT if data.get(lower.get(name, "")) and name not in found]
    if len(found) == 1 and not beside:
        return [lower[found[0]]]
    if found:
        fields = [lower[name] for name in (*beside, *found)]
        raise RowError(
            f"the data has {' and '.join(fields)}: say with the format's option `prompt` which of them are asked "
            f"(several are joined: `prompt: [{', '.join(fields)}]`)"
        )
    texts = [key for key, value in data.items() if isinstance(value, str) and value and key.lower() not in RESPONSES]
    if len(texts) != 1 and needed:
        raise RowError("no field looks like the prompt: name it with the format's option `prompt`", fields=list(data))
    return texts if len(texts) == 1 else []


def turn_keys(value: Any) -> tuple[str, str] | None:
    """(role key, content key) of a list of turns."""
    first = value[0] if isinstance(value, list) and value else None
    return next((keys for keys in TURNS if isinstance(first, Mapping) and {*keys} <= first.keys()), None)


def _conversation(data: JsonObject, name: str, instruction: str) -> Asked:
    keys = turn_keys(data[name])
    assert keys is not None
    turns = read_turns(from_json_text(data[name], name), *keys)
    turns.system(data.get("system"))
    messages = turns.messages
    if instruction:
        first = next((number for number, message in enumerate(messages) if message.role == "user"), None)
        if first is not None:
            messages[first] = replace(messages[first], content=f"{instruction}\n{messages[first].content}")
    answer = messages.pop() if messages[-1].role == "assistant" else None
    return Asked(tuple(messages), (name, "system"), answer, "", tuple(turns.notes))
