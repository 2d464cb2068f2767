"""What a control of Label Studio says in one annotation, as JSON and JSON_MIN write it: one value of a known kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tuneloop.core.conversation import JsonObject
from tuneloop.data.annotations import Kind, position

SPANS = ("labels", "hypertextlabels", "htmllabels", "paragraphlabels")
"""Keys under which regions of text hold their labels."""
BESIDES = ("start", "x", "points", "rle", "sequence", "channel")
"""Keys of results that belong to a region of the item, not to the item."""
CHOSEN: tuple[tuple[str, Kind], ...] = (("choices", "choice"), ("taxonomy", "path"))
SINGLE: tuple[tuple[str, Kind], ...] = (
    ("rating", "number"), ("number", "number"), ("selected", "pair"), ("datetime", "other"),
)  # fmt: skip


def read_control(results: Sequence[Any]) -> tuple[Kind, Any] | None:
    """The value of one control from its results (the `value` objects, or what JSON_MIN made of them); None if empty.

    One choice is a string, several are a sorted list; a path of the taxonomy is "a/b"; spans are {"start", "end",
    "text", "label"} in order of position; what belongs to a region and what is not known stays as it is (`other`).
    """
    results = [result for result in results if result not in (None, "", [], {})]
    if not results:
        return None
    if all(isinstance(result, str) for result in results):
        return "string", _one(results)
    objects = [result for result in results if isinstance(result, Mapping)]
    if any(_span_key(value) for value in objects):
        return "spans", sorted((span for value in objects for span in _spans(value)), key=position)
    messages = [value.get("chatmessage", value) for value in objects]
    if all(isinstance(message, Mapping) and {"role", "content"} <= message.keys() for message in messages) and messages:
        return "chat", [{"role": message["role"], "content": message["content"]} for message in messages]
    if len(objects) < len(results) or any(key in value for value in objects for key in BESIDES):
        return "other", list(results)
    for key, kind in CHOSEN:
        if key in objects[0]:
            # a choice inside a choice is written as a path, too
            chosen = {_path(one) for value in objects for one in _as_list(value.get(key))}
            return (kind, _one(sorted(chosen))) if chosen else None
    if "text" in objects[0]:
        texts = [text for value in objects for text in _as_list(value.get("text")) if isinstance(text, str)]
        return ("text", _one(texts)) if any(text.strip() for text in texts) else None
    for key, kind in SINGLE:
        if key in objects[0] and len(objects) == 1:
            value = objects[0][key]
            known = _is_number(value) if kind == "number" else isinstance(value, str)
            return None if value is None else (kind if known else "other", value)
    return "other", list(results)


def _one(values: Sequence[Any]) -> Any:
    return values[0] if len(values) == 1 else list(values)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _path(value: Any) -> str:
    return "/".join(map(str, value)) if isinstance(value, list) else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _span_key(value: Mapping[str, Any]) -> str | None:
    """The key of the labels, where the result is a region of a text; regions of sound also have a start and an end."""
    if "channel" in value or not ("text" in value or "startOffset" in value or isinstance(value.get("start"), int)):
        return None
    return next((key for key in SPANS if isinstance(value.get(key), list)), None)


def _spans(value: Mapping[str, Any]) -> list[JsonObject]:
    """One span for each label of a region. HTML and dialogues place it by node or turn: `globalOffsets` if known."""
    key = _span_key(value)
    if key is None:
        return []
    whole = value.get("globalOffsets")
    place: dict[str, Any] = {}
    for end in ("start", "end"):
        if isinstance(whole, Mapping):
            place[end] = whole.get(end)
        elif f"{end}Offset" in value:
            place[end] = f"{value.get(end)}:{value[f'{end}Offset']}"
        else:
            place[end] = value.get(end)
    text = {"text": value["text"]} if isinstance(value.get("text"), str) else {}
    return [{**place, **text, "label": str(label)} for label in value[key]]
