"""Format `argilla`: records of Argilla 2, as `to_json` writes them and as `to_datasets` flattens them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any

from pydantic import field_validator

from tuneloop.core.conversation import JsonObject
from tuneloop.data.annotated import AnnotationFormat
from tuneloop.data.annotations import Agree, Annotation, Kind, position
from tuneloop.data.formats import RowError
from tuneloop.data.items import Item, item_id, learn
from tuneloop.data.reading import MEMBER

RESPONSES = ".responses"
SENT = (None, "submitted")


class Argilla(AnnotationFormat):
    """Fields with every user's responses to labels, ratings, texts, rankings and spans.

    Suggestions are not read. Of the flat records of `to_datasets`, drafts and discarded responses are missing ones; the
    JSON does not say what is a draft.
    """

    @field_validator("agree")
    @classmethod
    def _without_times(cls, value: Agree) -> Agree:
        if value == "newest":
            raise ValueError("Argilla exports no times; choose majority, unanimous or first, or name `trusted` raters")
        return value

    def item(self, record: JsonObject) -> Item:
        fields, more, answers = _nested(record) if isinstance(record.get("fields"), dict) else _flat(record)
        if not fields:
            raise RowError("no Argilla record: it has no 'fields'", keys=list(record))
        by_user: dict[str, dict[str, Any]] = {}
        unsent: dict[str, bool] = {}
        kinds: dict[str, Kind] = {}
        for question, user, value, status in answers:
            sent = by_user.setdefault(user, {})
            unsent[user] = unsent.get(user, False) or status == "discarded"
            read = _read(value)
            if read is not None:
                learn(kinds, question, read[0])
            if status in SENT and (read is not None or value == []):
                sent[question] = read[1] if read is not None else []
        annotations = tuple(
            Annotation(user, values, cancelled=unsent[user] and not values) for user, values in by_user.items()
        )
        notes = []
        if record.get("status") == "pending" and annotations and RESPONSES not in "".join(record):
            notes.append("pending records were read too: their responses may be drafts, which the JSON does not say")
        meta = {"id": record.get("id"), "status": record.get("status"), **more}
        return Item(item_id(record.get("id"), fields), fields, annotations, kinds, meta=meta, notes=tuple(notes))

    def likeness(self, record: JsonObject) -> float:
        if isinstance(record.get("fields"), dict):
            return float(isinstance(record.get("responses"), dict))
        return float(any(str(key).endswith(RESPONSES) and f"{key}.users" in record for key in record))


def _nested(record: JsonObject) -> tuple[JsonObject, JsonObject, Iterator[tuple[str, str, Any, Any]]]:
    """(fields, metadata, answers) of the JSON: responses = {question: [{value, user_id}]}."""

    def answers() -> Iterator[tuple[str, str, Any, Any]]:
        responses = record.get("responses")
        for question, given in responses.items() if isinstance(responses, dict) else ():
            for one in given if isinstance(given, list) else []:
                if isinstance(one, Mapping):
                    yield str(question), str(one.get("user_id") or ""), one.get("value"), one.get("status")

    metadata = record.get("metadata")
    return record["fields"], metadata if isinstance(metadata, dict) else {}, answers()


def _flat(record: JsonObject) -> tuple[JsonObject, JsonObject, Iterator[tuple[str, str, Any, Any]]]:
    """(fields, metadata, answers) of a flat record: `quality.responses`, `….users` and `….status` are lists."""
    questions = [key.removesuffix(RESPONSES) for key in record if key.endswith(RESPONSES)]
    ours = ("id", "status", "_server_id", "score", MEMBER)
    parts = tuple(f"{question}{part}" for question in questions for part in (RESPONSES, ".suggestion"))
    fields = {key: value for key, value in record.items() if key not in ours and not key.startswith(parts)}

    def answers() -> Iterator[tuple[str, str, Any, Any]]:
        for question in questions:
            keys = [f"{question}{RESPONSES}{part}" for part in ("", ".users", ".status")]
            lists = [record.get(key) or [] for key in keys]
            if any(isinstance(one, str) for one in lists):
                raise RowError("Argilla's CSV prints lists as text that cannot be read: export with to_json()")
            if not all(isinstance(one, list) for one in lists) or len(lists[0]) != len(lists[1]):
                raise RowError(f"{' and '.join(keys[:2])} are not lists of the same length", question=question)
            for user, value, status in zip_longest(lists[1], lists[0], lists[2]):
                yield question, str(user), value, status

    return fields if questions else {}, {}, answers()


def _read(value: Any) -> tuple[Kind, Any] | None:
    """The kind and value of a response: text or label, rating, several labels (or a ranking), spans; None where it is
    empty, and so does not show its kind."""
    if value in (None, "", []):
        return None
    if isinstance(value, str):
        return "string", value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return "number", value
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return "choice", value[0] if len(value) == 1 else value
    keys = {"start", "end", "label"}
    if isinstance(value, list) and all(isinstance(one, dict) and keys <= one.keys() for one in value):
        spans = [{"start": one["start"], "end": one["end"], "label": str(one["label"])} for one in value]
        return "spans", sorted(spans, key=position)
    return "other", value
