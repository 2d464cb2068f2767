"""Format `label_studio`: the JSON export of Label Studio, one task a record with all its annotations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuneloop.core.conversation import JsonObject
from tuneloop.data.annotated import AnnotationFormat
from tuneloop.data.annotations import Annotation, Kind
from tuneloop.data.controls import read_control
from tuneloop.data.formats import RowError
from tuneloop.data.items import Item, item_id, learn


class LabelStudio(AnnotationFormat):
    """Tasks of Label Studio's JSON export, with every annotator's choices, ratings, texts, taxonomy paths and spans.

    Drafts and predictions are not read; a skipped (cancelled) annotation is a missing one. Also the `completions` of
    versions before 1.0.
    """

    def item(self, record: JsonObject) -> Item:
        data, given = record.get("data"), record.get("annotations", record.get("completions"))
        if not isinstance(data, dict):
            raise RowError("no task: the record has no object 'data'", keys=list(record))
        annotations: list[Annotation] = []
        kinds: dict[str, Kind] = {}
        pairs: dict[str, tuple[str, str]] = {}
        notes: list[str] = []
        for annotation in given if isinstance(given, list) else []:
            if isinstance(annotation, Mapping):
                results = _by_control(annotation, pairs, data, notes)
                annotations.append(_annotation(annotation, results, kinds))
        meta = record.get("meta") if isinstance(record.get("meta"), dict) else {}
        meta = {"id": record.get("id"), "agreement": record.get("agreement"), **(meta or {})}
        number = item_id(record.get("id"), data)
        return Item(number, data, tuple(annotations), kinds, pairs, meta, tuple(notes), sent=True)

    def likeness(self, record: JsonObject) -> float:
        given = record.get("annotations", record.get("completions"))
        return float(isinstance(record.get("data"), dict) and isinstance(given, list))


def rater(value: Any) -> str:
    """Who annotated: an id, or a person as older exports and the API write one. JSON_MIN, too, takes the e-mail."""
    if isinstance(value, Mapping):
        value = value.get("email") or value.get("id")
    return "" if value is None else str(value)


def _annotation(annotation: Mapping[str, Any], results: Mapping[str, list[Any]], kinds: dict[str, Kind]) -> Annotation:
    cancelled = bool(annotation.get("was_cancelled") or annotation.get("skipped"))
    values: dict[str, Any] = {}
    for control, found in results.items():
        read = read_control(found)
        if read is not None:
            learn(kinds, control, read[0])
            if not cancelled:
                values[control] = read[1]
    return Annotation(
        rater(annotation.get("completed_by")),
        values,
        ground_truth=bool(annotation.get("ground_truth") or annotation.get("honeypot")),
        cancelled=cancelled,
        time=annotation.get("updated_at") or annotation.get("created_at"),
        seconds=annotation.get("lead_time"),
    )


def _by_control(
    annotation: Mapping[str, Any], pairs: dict[str, tuple[str, str]], data: JsonObject, notes: list[str]
) -> dict[str, list[Any]]:
    """The values of an annotation's results by control; two fields that a control compares go to `pairs`."""
    results: dict[str, list[Any]] = {}
    found = annotation.get("result")
    for result in found if isinstance(found, list) else []:
        if not isinstance(result, Mapping):
            continue
        name, value = result.get("from_name"), result.get("value")
        if isinstance(name, str) and isinstance(value, Mapping):
            results.setdefault(name, []).append(value)
            fields = str(result.get("to_name")).split(",")
            if result.get("type") == "pairwise" and len(fields) == 2 and all(one in data for one in fields):
                pairs[name] = (fields[0], fields[1])
        elif result.get("type") == "relation":
            notes.append("relations between regions were not read")
    return results
