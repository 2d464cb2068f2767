"""Tool calls read out of what a model wrote, in the forms that models write them; knows no tokens and no templates.

Hermes and Qwen: <tool_call>{"name", "arguments"}</tool_call>; Qwen3-Coder: <function=name><parameter=key>value;
GLM: name<arg_key>…<arg_value>… within <tool_call>; Llama 3: <|python_tag|>{"name", "parameters"}; …; Mistral:
[TOOL_CALLS][{…}] and [TOOL_CALLS]name[ARGS]{…}; and plain or fenced JSON: one call or a list, OpenAI's shape included.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple, cast

from tuneloop.core import jsonl
from tuneloop.core.conversation import ToolCall

_TAGGED = re.compile(r"<(tool_call|function_call|tool_calls|functioncall)>\s*(.*?)\s*(?:</\1>|(?=<\1>)|\Z)", re.S)
_FUNCTION = re.compile(r"<function=([^<>\s]+)>(.*?)(?:</function>|\Z)", re.S)
_PARAMETER = re.compile(r"<parameter=([^<>\s]+)>\n?(.*?)\n?(?:</parameter>|(?=<parameter=)|\Z)", re.S)
_ARGUMENT = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.S)
_MISTRAL = re.compile(r"\[TOOL_CALLS\]\s*")
_NAMED = re.compile(r"\s*([\w.-]+)\s*(?:\[CALL_ID\]\s*[\w-]+\s*)?(?:\[ARGS\])?\s*(?=\{)")
_FENCE = re.compile(r"```(?:json|tool_call|tool_code)?[ \t]*\n(.*?)\n?[ \t]*(?:```|\Z)", re.S)
_PYTHON_TAG = "<|python_tag|>"
SPECIAL = frozenset({
    "<tool_call>", "</tool_call>", "<tool_calls>", "</tool_calls>", "<function_call>", "</function_call>",
    "<functioncall>", "</functioncall>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "[TOOL_CALLS]",
    "[CALL_ID]", "[ARGS]", _PYTHON_TAG,
})  # fmt: skip
"""Marks of calls that are special tokens in some tokenizers: without them calls cannot be told from text."""


class Read(NamedTuple):
    """What an answer says beside its calls, the calls in their order, and the marked places that are no call."""

    text: str
    calls: tuple[ToolCall, ...]
    broken: tuple[str, ...] = ()


def read_tool_calls(text: str) -> Read:
    """The calls in an answer. JSON without a mark is a call only where it is all that the answer, or a fence, holds.

    Arguments are JSON values; written as a text, that text is parsed where it is JSON.
    """
    for pattern, reader in ((_TAGGED, _tagged), (_FUNCTION, _function)):
        if found := list(pattern.finditer(text)):
            read = [reader(match) for match in found]
            broken = [match[0] for match, calls in zip(found, read, strict=True) if calls is None]
            return Read(pattern.sub("", text).strip(), _flat(read), tuple(broken))
    mark = _MISTRAL.search(text)
    if mark is not None:
        calls = _mistral(text[mark.end() :])
        return Read(text[: mark.start()].strip(), tuple(calls), () if calls else (text[mark.start() :],))
    before, tagged, after = text.partition(_PYTHON_TAG)
    if tagged:
        calls = _sequence(after)
        return Read(before.strip(), tuple(calls or ()), () if calls else (after,))
    whole = _sequence(text)
    if whole is not None:
        return Read("", tuple(whole))
    fences = [(match, _sequence(match[1])) for match in _FENCE.finditer(text)]
    for match, calls in fences:
        if calls is not None:
            text = text.replace(match[0], "")
    return Read(text.strip(), _flat([calls for _, calls in fences]))


def call_of(value: Any) -> ToolCall | None:
    """The call that a JSON value describes: {"name", "arguments" or "parameters"}, or these within "function"."""
    if not isinstance(value, dict):
        return None
    given = cast("dict[str, Any]", value)
    inner = given.get("function")
    if isinstance(inner, dict):
        call = call_of(inner)
        name = given.get("id")
        return None if call is None else ToolCall(call.name, call.arguments, name if isinstance(name, str) else None)
    name = given.get("name", inner)
    key = next((key for key in ("arguments", "parameters") if key in given), None)
    if not isinstance(name, str) or not name or key is None:
        return None
    return ToolCall(name, _parsed(given[key]), given["id"] if isinstance(given.get("id"), str) else None)


def _tagged(match: re.Match[str]) -> list[ToolCall] | None:
    inside = match[2]
    if functions := list(_FUNCTION.finditer(inside)):
        return _flat_list([_function(function) for function in functions])
    if "<arg_key>" in inside:
        arguments = {key.strip(): _value(value) for key, value in _ARGUMENT.findall(inside)}
        return [ToolCall(inside.partition("<arg_key>")[0].strip(), arguments)]
    return _sequence(inside)


def _function(match: re.Match[str]) -> list[ToolCall] | None:
    return [ToolCall(match[1], {key: _value(value) for key, value in _PARAMETER.findall(match[2])})]


def _mistral(text: str) -> list[ToolCall]:
    listed = _sequence(text)
    if listed is not None:
        return listed
    calls: list[ToolCall] = []
    place = 0
    while (named := _NAMED.match(text, place)) is not None:
        arguments, place = _json_at(text, named.end())
        if place < 0:
            break
        calls.append(ToolCall(named[1], arguments))
        mark = _MISTRAL.match(text, place)
        place = mark.end() if mark is not None else place
    return calls


def _sequence(text: str) -> list[ToolCall] | None:
    """The calls of a text that is nothing but calls as JSON: one, a list of them, or several parted by `;` or white
    space. None where it is anything else."""
    calls: list[ToolCall] = []
    place = _skip(text, 0)
    while place < len(text):
        value, place = _json_at(text, place)
        if place < 0:
            return None
        for one in cast("list[Any]", value) if isinstance(value, list) else [value]:
            call = call_of(one)
            if call is None:
                return None
            calls.append(call)
        place = _skip(text, place)
    return calls or None


def _skip(text: str, place: int) -> int:
    while place < len(text) and text[place] in " \t\r\n;":
        place += 1
    return place


def _json_at(text: str, place: int) -> tuple[Any, int]:
    """The JSON value that begins at a place and where it ends; (None, -1) where there is none."""
    if text[place : place + 1] not in ("{", "["):
        return None, -1
    try:
        return jsonl.DECODER.raw_decode(text, place)
    except (ValueError, RecursionError):
        return None, -1


def _parsed(arguments: Any) -> Any:
    """Arguments as a value: OpenAI's API writes them as a text of JSON."""
    return _value(arguments) if isinstance(arguments, str) else arguments


def _value(text: str) -> Any:
    try:
        return jsonl.parse(text)
    except (ValueError, RecursionError):
        return text


def _flat_list(read: list[list[ToolCall] | None]) -> list[ToolCall]:
    return [call for calls in read for call in calls or ()]


def _flat(read: list[list[ToolCall] | None]) -> tuple[ToolCall, ...]:
    return tuple(_flat_list(read))


def canonical(value: Any) -> str:
    """A text that is equal for equal JSON values: the order of keys does not matter, 1 is 1.0, and true is not 1."""
    return json.dumps(_plain(value), sort_keys=True)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in cast("dict[str, Any]", value).items()}
    return [_plain(inner) for inner in cast("list[Any]", value)] if isinstance(value, list) else value
