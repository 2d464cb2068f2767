"""What LLaMA-Factory would lose of the entries of a dataset_info.json, row by row; it says so in its log at most.

The rules are those of its `data/converter.py`: turns of the user's side (user, tool result) and of the assistant's side
(assistant, tool call) must strictly take turns, in even number. tuneloop reads such rows; the findings explain why
there are more of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tuneloop.core.conversation import JsonObject
from tuneloop.data.findings import finding
from tuneloop.data.llama_factory import Entry, entries
from tuneloop.data.read import open_source

SHOWN = 5  # rows named in a finding
USUAL = {
    "alpaca": ("input", "system", "history", "tools"),
    "sharegpt": ("system", "tools"),
    "openai": ("system", "tools"),
}
"""Columns that data of that form usually has beside the needed ones."""
ROLE_OF_COLUMN = {"input": "query"}
DROPPED, LOST, UNREAD = "llama_factory_drops", "llama_factory_loses", "llama_factory_unread"
MEANING = {
    DROPPED: "LLaMA-Factory drops {rows}, tuneloop reads them: {reason}",
    LOST: "LLaMA-Factory loses a part of {rows}, tuneloop keeps it: {reason}",
    UNREAD: "neither LLaMA-Factory nor tuneloop reads a column of {rows}: {reason}",
}


@dataclass
class _Seen:
    count: int = 0
    rows: list[int] = field(default_factory=list[int])


def lint(path: str) -> list[JsonObject]:
    """Findings on `…/dataset_info.json#name1,name2`, each with its entry and rows. Reads all rows once.

    Raises DataError.
    """
    return [found for entry in entries(path) for found in _lint(entry)]


def _lint(entry: Entry) -> Iterator[JsonObject]:
    raw = open_source(entry.path)
    seen: dict[tuple[str, str], _Seen] = {}
    for row, record in enumerate(raw.records()):
        for fault in _faults(entry, record):
            known = seen.setdefault(fault, _Seen())
            known.count += 1
            if len(known.rows) < SHOWN:
                known.rows.append(row)
    for (code, reason), known in seen.items():
        numbers = ", ".join(map(str, known.rows))
        rows = f"{known.count:,} row{'s' if known.count > 1 else ''} ({numbers}{', …' if known.count > SHOWN else ''})"
        examples = [{"source": entry.path, "row": row} for row in known.rows]
        message = f"entry '{entry.name}': {MEANING[code].format(rows=rows, reason=reason)}"
        yield finding("WARN", code, known.count, message, source=entry.name, examples=examples)
    if entry.num_samples is not None and entry.num_samples > raw.rows:
        message = (
            f"entry '{entry.name}': LLaMA-Factory repeats rows at random until there are {entry.num_samples:,}; "
            f"tuneloop takes the {raw.rows:,} there are, once each"
        )
        yield finding("INFO", "llama_factory_repeats", entry.num_samples - raw.rows, message, source=entry.name)
    if entry.formatting == "alpaca" and entry.columns["response"] is None and entry.path.endswith(".txt"):
        message = f"entry '{entry.name}': LLaMA-Factory takes each line for a document; tuneloop divides at blank lines"
        yield finding("INFO", "llama_factory_lines", raw.rows, message, source=entry.name)


def _faults(entry: Entry, record: JsonObject) -> Iterator[tuple[str, str]]:
    """(code, reason) of everything that is lost of a row."""
    for column in USUAL[entry.formatting]:
        if record.get(column) and column not in entry.columns.values():
            role = ROLE_OF_COLUMN.get(column, column)
            yield UNREAD, f'\'{column}\' is not among its columns; add "{role}": "{column}" to have it read'
    if entry.ranking:  # the order of turns is another one there: what is asked ends with the user
        return
    if entry.formatting == "alpaca":
        column = entry.columns["response"]
        if column is not None and not isinstance(record.get(column), str):
            yield DROPPED, f"the answer is no text but {type(record.get(column)).__name__}"
        history = record.get(entry.columns["history"] or "")
        if history and not isinstance(history, list):
            yield LOST, f"the history is no list but {type(history).__name__}"
        return
    turns = record.get(entry.columns["messages"] or "")
    if not isinstance(turns, list):
        yield DROPPED, f"the conversation is no list but {type(turns).__name__}"
    elif all(isinstance(turn, Mapping) for turn in turns):
        yield from _lost_in_turns(entry, turns)
        fault = _disorder(_sides(entry, turns))
        if fault is not None:
            yield DROPPED, fault


def _lost_in_turns(entry: Entry, turns: list[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    calling = [turn for turn in turns if turn.get("tool_calls")]
    if entry.formatting == "sharegpt" and calling:
        yield LOST, "tool_calls are read under formatting openai only"
    if entry.formatting == "openai":
        if calling and entry.tags["function_tag"] is None:
            yield LOST, "tool_calls: function_tag is not among its tags"
        if any(turn.get(entry.tags["content_tag"] or "") for turn in calling):
            yield LOST, "text beside tool_calls"
        if turns and turns[-1].get(entry.tags["role_tag"] or "") == entry.tags["observation_tag"] is not None:
            yield LOST, "a tool result at the end"


def _sides(entry: Entry, turns: list[Mapping[str, Any]]) -> list[str]:
    """The side of each turn as LLaMA-Factory sees it, without the system prompt: user, tool, assistant, system, or
    behind a question mark the name of a role that has no tag."""
    tags = {tag: key for key, tag in entry.tags.items() if tag is not None and key not in ("role_tag", "content_tag")}
    names = [str(turn.get(entry.tags["role_tag"] or "")) for turn in turns]
    if names and tags.get(names[0]) == "system_tag":
        del names[0]
    side = {"user_tag": "user", "observation_tag": "tool", "assistant_tag": "assistant", "function_tag": "assistant",
            "system_tag": "system"}  # fmt: skip
    sides = [side.get(tags.get(name, ""), f"?{name}") for name in names]
    if entry.formatting == "openai":  # several tool results become one turn, and those at the end none
        pairs = zip(["", *sides], sides, strict=False)
        sides = [side for before, side in pairs if not before == side == "tool"]
        sides = sides[:-1] if sides and sides[-1] == "tool" else sides
    return sides


def _disorder(sides: list[str]) -> str | None:
    """Why turns in that order are dropped, or None."""
    for number, side in enumerate(sides):
        if side == "system":
            return "a system message that is not the first"
        if side.startswith("?"):
            return f"the role '{side[1:]}' has no tag"
        if (side == "assistant") != bool(number % 2):
            if number == 0:
                return "it begins with the assistant"
            return f"two turns of the {'assistant' if side == 'assistant' else 'user'}'s side in a row"
    if len(sides) % 2:
        return "it ends with a tool result" if sides[-1] == "tool" else "it ends with the user"
    return None if sides else "it has no turns"
