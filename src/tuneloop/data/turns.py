"""How the turns, tool calls and content parts that occur in the wild become Messages.

Shared by the formats; knows nothing of files and columns. What is unreadable is a RowError.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, cast

from tuneloop.core import jsonl
from tuneloop.core.conversation import JsonObject, Message, Role, ToolCall
from tuneloop.data.formats import RowError

_NAMES: dict[Role, str] = {
    "system": "system developer 系统",
    "user": "user human 用户",
    "assistant": "assistant gpt chatgpt bing bard model bot function_call tool_call 助手",
    "tool": "tool function observation ipython tool_response function_response tool_result 工具",
    "text": "text",
}
ROLE_OF: dict[str, Role] = {name: role for role, names in _NAMES.items() for name in names.split()}
CALLS = ("function_call", "tool_call")
"""Names under which ShareGPT data writes an assistant turn that is a tool call."""
PROMPTS = (
    "prompt", "query", "question", "problem", "input", "instruction",
    "问题", "問題", "提问", "提問", "输入", "輸入", "指令",
)  # fmt: skip
RESPONSES = ("response", "answer", "output", "completion", "target", "回答", "答案", "回复", "回覆", "输出", "輸出")
"""The usual column names of a question and its answer."""
WEIGHTS = ("train", "weight", "loss_weight", "loss")
MEDIA_COLUMNS = ("images", "audios", "videos", "image", "audio", "video")
_MEDIA = frozenset(MEDIA_COLUMNS)
MEDIA_PARTS = ("image", "audio", "video", "file", "document")


@dataclass
class Turns:
    """A conversation under way: `add` takes raw turns, `done` gives the messages."""

    messages: list[Message] = field(default_factory=list[Message])
    notes: list[str] = field(default_factory=list[str])

    def add(self, role: str, turn: Mapping[str, Any], content: Any) -> None:
        """Appends one raw turn; a turn with tool results becomes several messages. Raises RowError."""
        where = f"message {len(self.messages)} ({role})"
        known = ROLE_OF.get(role.strip().lower())
        if known is None:
            raise RowError(f"unknown role '{role}'; known: {', '.join(ROLE_OF)}")
        is_call = role.strip().lower() in CALLS
        parts = _Parts(calls=read_calls(content, where)) if is_call else _read_content(content, where)
        parts.calls += _calls_of_turn(turn, where)
        if content is None and not parts.calls and known != "assistant":
            raise RowError(f"{where} has no content")
        reasoning = parts.reasoning or next(
            (turn[key] for key in ("reasoning_content", "reasoning", "thinking") if turn.get(key)), None
        )
        if reasoning is not None and not isinstance(reasoning, str):
            raise RowError(f"{where}: reasoning must be text, found {type(reasoning).__name__}")
        if parts.calls_before_text:
            self.notes.append("text after a tool call was put before the call, as chat templates write it")
        self.messages += parts.results
        if parts.results and not (parts.text or parts.calls or reasoning):
            return
        message = Message(
            known, parts.text, reasoning, tuple(parts.calls), turn.get("tool_call_id"), _weight(turn, known, where)
        )
        self._append(message, merge=is_call)

    def _append(self, message: Message, merge: bool) -> None:
        """ShareGPT writes text and each call of one answer as turns of their own: they are one assistant message."""
        last = self.messages[-1] if self.messages else None
        if merge and last is not None and last.role == "assistant" and last.train == message.train:
            self.messages[-1] = replace(last, tool_calls=last.tool_calls + message.tool_calls)
        else:
            self.messages.append(message)

    def system(self, text: Any) -> None:
        """A system prompt that stands in a column of its own."""
        if text is None or text == "":
            return
        if self.messages and self.messages[0].role == "system":
            if self.messages[0].content != text:
                self.notes.append("the system message of the conversation was used, not the column 'system'")
            return
        self.messages.insert(0, Message("system", text_of(text, "system")))

    def scale(self, weight: Any) -> None:
        """A weight of the whole conversation, on all its supervised messages."""
        if isinstance(weight, (int, float)) and weight != 1:
            factor = _checked_weight(weight, "the conversation")
            self.messages = [
                replace(message, train=message.weight * factor) if message.weight else message
                for message in self.messages
            ]


def read_turns(turns: Any, role_key: str, content_key: str, roles: Mapping[str, str] = {}) -> Turns:
    """A list of {role, content} objects (or its JSON text, as Parquet files keep it).

    `roles` translates names of roles to ones that are known; they go before the usual meaning.
    """
    turns = from_json_text(turns, "the conversation")
    if not isinstance(turns, list) or not turns:
        raise RowError("the conversation is no list of messages" if turns else "the conversation is empty")
    out = Turns()
    for number, turn in enumerate(cast("list[Any]", turns)):
        turn = from_json_text(turn, f"message {number}")
        if not isinstance(turn, Mapping) or not isinstance(turn.get(role_key), str):
            raise RowError(f"message {number} has no '{role_key}'", message=turn)
        role = roles.get(turn[role_key], turn[role_key])
        out.add(role, cast("Mapping[str, Any]", turn), turn.get(content_key))
    return out


def text_of(value: Any, name: str, notes: list[str] | None = None) -> str:
    """A cell as text: strings as they are, numbers and objects as their JSON. Raises RowError for a missing one."""
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise RowError(f"no {name}")
    if notes is not None and not isinstance(value, (int, float)):
        notes.append(f"{name} was a JSON value and is trained on as its JSON text")
    return dump_text(value)


def dump_text(value: Any) -> str:
    """A value as compact JSON text."""
    return jsonl.dump(value).decode()


def from_json_text(value: Any, name: str) -> Any:
    """The value of a JSON text; anything that is no string as it is. Raises RowError."""
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    try:
        return jsonl.parse(value)
    except ValueError as error:
        raise RowError(f"{name} is text, but not valid JSON ({error})") from error


def read_tools(value: Any) -> tuple[JsonObject, ...]:
    """Tool schemas exactly as given: a list, or its JSON text."""
    value = from_json_text(value, "tools")
    if value is None or value == {}:
        return ()
    tools = value if isinstance(value, list) else [value]
    if not all(isinstance(tool, dict) for tool in tools):
        raise RowError("tools must be JSON schemas (objects)")
    return tuple(cast("list[JsonObject]", tools))


def read_calls(value: Any, where: str) -> list[ToolCall]:
    """One call or a list of calls, as objects or as JSON text."""
    value = from_json_text(value, f"{where}: the tool call")
    if value is None:
        return []
    calls = value if isinstance(value, list) else [value]
    return [_read_call(from_json_text(call, f"{where}: the tool call"), where) for call in calls]


def read_history(value: Any) -> list[tuple[str, str]]:
    """Earlier rounds as [[question, answer], …] or its JSON text."""
    value = from_json_text(value, "history")
    rounds: list[tuple[str, str]] = []
    for number, pair in enumerate(value or ()):
        if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
            raise RowError(f"history[{number}] is no pair [question, answer]", round=pair)
        rounds.append((text_of(pair[0], "question in history"), text_of(pair[1], "answer in history")))
    return rounds


def ask_and_answer(record: Mapping[str, Any], prompt: str, response: str, notes: list[str]) -> tuple[Message, ...]:
    """system, history, question and answer of a record as messages."""
    asked = text_of(record.get(prompt), prompt, notes)
    if not asked.strip():
        raise RowError(f"the {prompt} is empty")
    messages = [Message("system", text_of(record["system"], "system"))] if record.get("system") else []
    for question, answer in read_history(record.get("history")):
        messages += [Message("user", question), Message("assistant", answer)]
    answer = Message("assistant", text_of(record.get(response), response, notes))
    return (*messages, Message("user", asked), answer)


def reject_media(record: Mapping[str, Any]) -> None:
    """Raises RowError for a row with images, audio or video: dropping only the picture would train on a lie."""
    if _MEDIA.isdisjoint(record):
        return
    for name in MEDIA_COLUMNS:
        if record.get(name):
            raise RowError(f"the row has {name}: tuneloop trains on text only so far", column=name)


def rest(record: Mapping[str, Any], *used: str) -> JsonObject:
    """The columns that a format did not read, as meta; empty cells are left out, `meta` itself is unfolded."""
    meta = {key: value for key, value in record.items() if key not in used and value is not None}
    if isinstance(meta.get("meta"), dict):
        meta = {**meta.pop("meta"), **meta}
    return meta


@dataclass
class _Parts:
    """What the parts of one turn's content hold."""

    text: str = ""
    reasoning: str | None = None
    calls: list[ToolCall] = field(default_factory=list[ToolCall])
    results: list[Message] = field(default_factory=list[Message])
    calls_before_text: bool = False


def _read_content(content: Any, where: str) -> _Parts:
    if content is None:
        return _Parts()
    if not isinstance(content, list) or (content and not any(_is_part(part) for part in content)):
        return _Parts(text=text_of(content, f"content in {where}"))  # a tool may answer with any JSON value
    out = _Parts()
    for part in content:
        _read_part(part, out, where)
    return out


def _is_part(part: Any) -> bool:
    return isinstance(part, str) or (isinstance(part, Mapping) and "type" in part)


def _read_part(part: Any, out: _Parts, where: str) -> None:
    if isinstance(part, str):
        part = {"type": "text", "text": part}
    if not isinstance(part, Mapping):
        raise RowError(f"{where}: a content part is no object", part=part)
    kind = str(part.get("type"))
    if kind in ("text", "input_text", "output_text"):
        text = _first(part, "text", "value", "content", where=where)
        out.calls_before_text |= bool(out.calls) and bool(text)
        out.text += text
    elif kind in ("reasoning", "thinking"):
        thought = _first(part, "value", "thinking", "reasoning", "text", where=where)
        out.reasoning = thought if out.reasoning is None else f"{out.reasoning}\n{thought}"
    elif kind in CALLS:
        out.calls += read_calls(part.get("value", part), where)
    elif kind == "tool_use":
        out.calls.append(ToolCall(_name(part, where), part.get("input"), part.get("id")))
    elif kind == "tool_result":
        inner = _read_content(part.get("content"), where)
        out.results.append(Message("tool", inner.text, tool_call_id=part.get("tool_use_id")))
    elif any(word in kind for word in MEDIA_PARTS):
        raise RowError(f"{where} has a part of type '{kind}': tuneloop trains on text only so far", part=kind)
    else:
        raise RowError(f"{where}: unknown content part of type '{kind}'", part=part)


def _first(part: Mapping[str, Any], *keys: str, where: str) -> str:
    for key in keys:
        if isinstance(part.get(key), str):
            return part[key]
    raise RowError(f"{where}: a {part.get('type')} part without text", part=part)


def _calls_of_turn(turn: Mapping[str, Any], where: str) -> list[ToolCall]:
    return read_calls(turn.get("tool_calls"), where) + read_calls(turn.get("function_call"), where)


def _read_call(call: Any, where: str) -> ToolCall:
    if not isinstance(call, Mapping):
        raise RowError(f"{where}: a tool call is no object", call=call)
    function = call.get("function") if isinstance(call.get("function"), Mapping) else call
    assert isinstance(function, Mapping)
    arguments = function.get("arguments", function.get("parameters"))
    if isinstance(arguments, str):
        # OpenAI sends the arguments as JSON text, users write objects: both mean the same value
        with suppress(ValueError):  # what is no JSON stays the text that it is
            arguments = jsonl.parse(arguments) if arguments.strip() else {}
    return ToolCall(_name(function, where), arguments, call.get("id"))


def _name(call: Mapping[str, Any], where: str) -> str:
    if not isinstance(call.get("name"), str) or not call["name"]:
        raise RowError(f"{where}: a tool call without a name", call=dict(call))
    return call["name"]


def _weight(turn: Mapping[str, Any], role: str, where: str) -> float | None:
    """None where the weight is the role's default, so that saying it does not change the Example's id."""
    given = next((turn[key] for key in WEIGHTS if turn.get(key) is not None), None)
    if given is None:
        return None
    weight = _checked_weight(given, where)
    return None if weight == float(role == "assistant") else weight


def _checked_weight(value: Any, where: str) -> float:
    if not isinstance(value, (bool, int, float)) or not math.isfinite(value) or value < 0:
        raise RowError(f"{where}: a loss weight is a number from 0 up, found {value!r}")
    return float(value)
