"""Format `label_studio_min`: the JSON_MIN, CSV and TSV exports of Label Studio, one flat record an annotation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar

from tuneloop.core import jsonl
from tuneloop.core.conversation import JsonObject
from tuneloop.data.annotated import AnnotationFormat
from tuneloop.data.annotations import Annotation, Kind
from tuneloop.data.asked import CONVERSATIONS, TEXTS, turn_keys
from tuneloop.data.controls import read_control
from tuneloop.data.formats import RowError
from tuneloop.data.items import Item, item_id, item_key, learn
from tuneloop.data.reading import MEMBER
from tuneloop.data.turns import PROMPTS, RESPONSES

MARKS = ("annotator", "annotation_id", "lead_time")
"""Columns that are there in every JSON_MIN and CSV export."""
OURS = (*MARKS, MEMBER, "id", "created_at", "updated_at", "agreement", "history")
HIDDEN = "_data_"  # the CSV renames a field whose name is also a control's
TRANSCRIPT = "_transcript"  # the CSV repeats a chat as text
ASKED = (*PROMPTS, *TEXTS)
NO_CONTROLS = (*ASKED, *RESPONSES, *CONVERSATIONS)


class LabelStudioMin(AnnotationFormat):
    """Label Studio's JSON_MIN, CSV or TSV: the annotations of a task joined by its id.

    These exports do not say which columns are the task's data and which the annotators' answers; it is worked out from
    the whole file, or given by `controls`. Ground truth and skipped tasks are not in them: the JSON export is better.
    """

    joins: ClassVar = True

    controls: tuple[str, ...] = ()
    """The columns that annotators filled. Automatic: those after `id` in JSON_MIN; those with a control's JSON, or that
    differ between annotations of one task, or that alone are left."""

    def join(self, records: Iterable[JsonObject]) -> Iterable[JsonObject]:
        rows = [_from_text(record) for record in records]
        controls = list(self.controls) or _find_controls(rows)
        joined: dict[bytes, JsonObject] = {}
        for row in rows:
            data = _data_of(row, controls)
            # exports of several projects have the same ids; the texts tell them apart
            texts = [data[name] for name in ASKED if name in data]
            key = item_key(row.get("id") if row.get("id") is not None else data, texts)
            task = joined.setdefault(key, {"id": row.get("id"), "data": data, "controls": controls, "annotations": []})
            task["agreement"] = row.get("agreement")
            if row.get("annotation_id") is not None:  # else the task was exported without an annotation
                said = {name: row[name] for name in controls if row.get(name) is not None}
                about = {name: row.get(name) for name in (*MARKS, "created_at", "updated_at")}
                task["annotations"].append({**about, "answers": said})
        return joined.values()

    def item(self, record: JsonObject) -> Item:
        if record["annotations"] and not record["controls"]:
            reason = "it is not clear which columns hold the annotators' answers: name them with the option `controls`"
            raise RowError(reason, columns=list(record["data"]))
        kinds: dict[str, Kind] = {}
        annotations: list[Annotation] = []
        for given in record["annotations"]:
            values: dict[str, Any] = {}
            for control, value in given["answers"].items():
                read = read_control(value if isinstance(value, list) else [value])
                if read is not None:
                    learn(kinds, control, read[0])
                    values[control] = read[1]
            annotator = given["annotator"]
            annotations.append(
                Annotation(
                    "" if annotator is None else str(annotator),
                    values,
                    time=given["updated_at"] or given["created_at"],
                    seconds=given["lead_time"],
                )
            )
        data, meta = record["data"], {"id": record["id"], "agreement": record["agreement"]}
        return Item(item_id(record["id"], data), data, tuple(annotations), kinds, meta=meta, sent=True)

    def likeness(self, record: JsonObject) -> float:
        return float(all(mark in record for mark in MARKS))


def _data_of(row: JsonObject, controls: Sequence[str]) -> JsonObject:
    """What raters saw, under its own names."""
    data: JsonObject = {}
    for key, value in row.items():
        name = key.removeprefix(HIDDEN)
        if key.startswith(HIDDEN) and name in controls:
            data[name] = value
        elif key not in OURS and key not in controls and key.removesuffix(TRANSCRIPT) not in controls:
            data[key] = value
    return data


def _from_text(record: JsonObject) -> JsonObject:
    """The record of a CSV with its values as they were: empty cells null, JSON texts of controls parsed."""
    if not isinstance(record.get("annotation_id"), str):
        return record
    row: JsonObject = {}
    for key, cell in record.items():
        row[key] = None if cell == "" else cell
        if isinstance(cell, str) and (cell.startswith(('{"', "[{")) or (key in ("lead_time", "agreement") and cell)):
            with suppress(ValueError):
                value = jsonl.parse(cell)
                if not isinstance(value, (dict, list)) or _looks_answered(value) or turn_keys(value):
                    row[key] = value
    return row


def _find_controls(rows: Sequence[JsonObject]) -> list[str]:
    """Which columns are answers. A column that is not found out is the task's data, and so meta."""
    columns = list(dict.fromkeys(str(key) for row in rows for key in row if key not in OURS))
    hidden = {name.removeprefix(HIDDEN) for name in columns if name.startswith(HIDDEN)}
    shaped = {key for row in rows for key, value in row.items() if _looks_answered(value)}
    found = {*hidden, *shaped, *_after_id(rows), *_varying(rows)} & {*columns}
    found = {name for name in found if name in hidden or str(name).lower() not in ASKED}
    left = [name for name in columns if name not in found and str(name).lower() not in NO_CONTROLS]
    if not found and len(left) == 1:  # there is a control in every project
        found = {*left}
    return [name for name in columns if name in found]


def _looks_answered(value: Any) -> bool:
    """Whether a value has the shape that Label Studio gives to anything but a single choice or text."""
    first = value[0] if isinstance(value, list) and value else value
    if not isinstance(first, Mapping):
        return False
    read = read_control([first])
    return read is not None and read[0] not in ("other", "string", "chat")


def _after_id(rows: Sequence[JsonObject]) -> set[str]:
    """Columns between `id` and `annotator`, where JSON_MIN puts the answers; a CSV is in the order of the alphabet."""
    found: set[str] = set()
    for row in rows:
        names = list(row)
        if names == sorted(names) or names[:1] == ["id"] or not {"id", "annotator"} <= row.keys():
            continue  # with an id first, the data has one of its own, and the place says nothing
        found.update(names[names.index("id") + 1 : names.index("annotator")])
    return found


def _varying(rows: Sequence[JsonObject]) -> set[str]:
    """Columns that differ between annotations of one task: the task's own data is the same in all of them."""
    first: dict[bytes, JsonObject] = {}
    found: set[str] = set()
    for row in rows:
        texts = [row[name] for name in ASKED if name in row]
        other = first.setdefault(item_key(row.get("id"), texts), row)
        if other is not row and row.get("id") is not None:
            found.update(name for name in {*row, *other} if name not in OURS and row.get(name) != other.get(name))
    return found
