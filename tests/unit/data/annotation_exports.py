"""Exports of annotation tools, written as the tools write them: their own code was the model."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from tuneloop.data.formats import FORMATS, Parts, RowError
from tuneloop.data.formats.auto import Auto

TYPES = {
    "quality": "choices", "issues": "choices", "score": "rating", "count": "number", "rewrite": "textarea",
    "task": "taxonomy", "better": "pairwise", "ner": "labels",
}  # fmt: skip
"""The controls of the made Label Studio project and their types."""
KEYS = {"textarea": "text", "pairwise": "selected"}
TAGS = {"choices": "Choices", "textarea": "TextArea"}

POEM = {"prompt": "写一首诗", "response": "春眠不觉晓"}
REVIEW = {"text": "屏幕很亮，电池不行。"}
MIN = {
    "prompt": "写一首诗", "response": "春眠不觉晓", "id": 1, "quality": "bad",
    "issues": {"choices": ["factual", "style"]}, "score": [{"rating": 2}], "rewrite": "改写二",
    "task": [{"taxonomy": [["reasoning", "common sense"]]}], "annotator": 2, "annotation_id": 2,
    "created_at": "2026-11-22T01:38:26.115607Z", "updated_at": "2026-11-22T01:38:26.115667Z", "lead_time": 8.0,
}  # fmt: skip
WORDS = st.text("aZ好，/\"'{}[]#😀,;: \n\u2028", min_size=1, max_size=8).filter(str.strip)
"""Texts with what files and tools stumble over."""


@dataclass
class Read:
    """What a format made of a file: rows and the reasons of those that left."""

    rows: list[Parts]
    drops: list[RowError]

    @property
    def turns(self) -> list[list[tuple[str, str]]]:
        return [[(message.role, message.content) for message in row.messages] for row in self.rows]

    @property
    def answers(self) -> list[str]:
        return [row.messages[-1].content for row in self.rows]

    @property
    def annotations(self) -> list[list[dict[str, Any]]]:
        return [row.meta["annotations"] for row in self.rows]


def read(name: str, records: Sequence[Mapping[str, Any]], **options: Any) -> Read:
    """Records through a format as the pipeline does it: joined, then parsed one by one."""
    plugin = FORMATS.make({name: options})
    out = Read([], [])
    joined = list(plugin.join([dict(record) for record in records]))
    plugin = plugin.informed(joined)
    for record in joined:
        try:
            out.rows.append(plugin.parse(record))
        except RowError as error:
            out.drops.append(error)
    return out


def result(control: str, value: Any, to: str = "text") -> dict[str, Any]:
    """One result of an annotation: `value` as the control's type wants it."""
    kind = TYPES[control]
    held = value if kind == "labels" else {KEYS.get(kind, kind): value}
    return {"id": "r", "from_name": control, "to_name": to, "type": kind, "origin": "manual", "value": held}


def annotation(rater: Any, results: Sequence[Mapping[str, Any]], number: int = 1, **more: Any) -> dict[str, Any]:
    """An annotation; `number` is its id and its time."""
    return {
        "id": number,
        "completed_by": rater,
        "result": list(results),
        "was_cancelled": False,
        "ground_truth": False,
        "created_at": f"2026-11-22T01:00:{number:02d}.000001Z",
        "updated_at": f"2026-11-22T01:00:{number:02d}.000002Z",
        "lead_time": 1.5,
        **more,
    }


def task(number: int, data: Mapping[str, Any], *annotations: Mapping[str, Any]) -> dict[str, Any]:
    """A task of Label Studio's JSON export."""
    return {
        "id": number, "data": dict(data), "annotations": list(annotations), "drafts": [], "predictions": [], "meta": {},
        "total_annotations": len(annotations), "cancelled_annotations": 0, "project": 1,
    }  # fmt: skip


def prettify(values: Sequence[Mapping[str, Any]], kind: str) -> Any:
    """What JSON_MIN makes of a control's values (`prettify_result` of label_studio_sdk.converter.utils 2.1)."""
    out: list[Any] = []
    for value in values:
        if kind == "choices" and len(value["choices"]) == 1:
            out.append(value["choices"][0])
        elif kind == "textarea" and len(value["text"]) == 1:
            out.append(value["text"][0])
        else:
            out.append(value)
    return out[0] if kind in TAGS and len(out) == 1 else out


def json_min(tasks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The JSON_MIN export of tasks: one record an annotation, the newest first, skipped ones left out."""
    out: list[dict[str, Any]] = []
    for one in tasks:
        given = [entry for entry in one["annotations"] if not entry["was_cancelled"]]
        for entry in sorted(given, key=lambda entry: entry["created_at"], reverse=True):
            row = {**one["data"], "id": one["id"]}
            by_name: dict[str, list[Any]] = {}
            for found in entry["result"]:
                by_name.setdefault(found["from_name"], []).append(found["value"])
            row |= {name: prettify(values, TYPES[name]) for name, values in by_name.items()}
            rater = entry["completed_by"]
            row |= {"annotator": rater["email"] if isinstance(rater, dict) else rater, "annotation_id": entry["id"]}
            out.append(row | {key: entry[key] for key in ("created_at", "updated_at", "lead_time")})
    return out


def as_csv(rows: Sequence[Mapping[str, Any]], data: Sequence[str], hidden: Sequence[str] = ()) -> list[dict[str, str]]:
    """The records of the CSV export, as a reader gives them: columns sorted, what is no text as JSON text, all cells
    text. `hidden`: fields of the data that are called like a control."""
    columns = sorted({key for row in rows for key in row})
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, columns, quoting=csv.QUOTE_NONNUMERIC)
    writer.writeheader()
    for row in rows:
        ours = {"id", "annotation_id", "lead_time", *data, *hidden}
        writer.writerow({
            key: value if isinstance(value, str) or key in ours else json.dumps(value, ensure_ascii=False)
            for key, value in row.items()
        })  # fmt: skip
    return list(csv.DictReader(io.StringIO(out.getvalue(), newline="")))


def votes(*labels: str, control: str = "quality", **more: Any) -> list[dict[str, Any]]:
    """One annotation for each label, by raters 1, 2, …"""
    return [annotation(n, [result(control, [label])], n, **more) for n, label in enumerate(labels, 1)]


def chosen_format(records: list[dict[str, Any]]) -> tuple[str, float]:
    """What `format: auto` finds, and how sure it is."""
    auto = FORMATS.make("auto")
    assert isinstance(auto, Auto)
    return auto.choose(records, "a file")


def reason(found: Read) -> str:
    """Why the only row, or the first of them, left."""
    assert not found.rows
    return found.drops[0].reason


def members(**files: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records of a zip, as the reader gives them."""
    return [{**row, "__member__": f"{name}.jsonl"} for name, rows in files.items() for row in rows]


def doc(number: int, text: str, **more: Any) -> dict[str, Any]:
    return {"id": number, "text": text, **more, "Comments": []}


def argilla(number: int, fields: dict[str, Any], responses: dict[str, dict[str, Any]], **more: Any) -> dict[str, Any]:
    """A record of `to_json`; `responses`: question -> {user: value}."""
    given = {
        question: [{"value": value, "user_id": user} for user, value in by.items()]
        for question, by in responses.items()
    }
    return {
        "id": f"r{number}", "fields": fields, "metadata": {"site": "x"}, "suggestions": {}, "responses": given,
        "vectors": {}, "status": "completed", "_server_id": "s", **more,
    }  # fmt: skip


def flat(record: dict[str, Any], status: str = "submitted") -> dict[str, Any]:
    """The same record as `to_datasets` flattens it."""
    out = {"id": record["id"], "status": record["status"], "_server_id": "s", **record["fields"], **record["metadata"]}
    for question, given in record["responses"].items():
        out[f"{question}.responses"] = [one["value"] for one in given]
        out[f"{question}.responses.users"] = [one["user_id"] for one in given]
        out[f"{question}.responses.status"] = [status] * len(given)
        out |= {
            f"{question}.suggestion": "s",
            f"{question}.suggestion.score": None,
            f"{question}.suggestion.agent": "m",
        }
    return out


RECORD = argilla(
    1, {"prompt": "q", "response": "r"},
    {
        "quality": {"u1": "good", "u2": "good", "u3": "bad"},
        "score": {"u1": 4, "u2": 5},
        "issues": {"u1": ["a", "b"], "u2": ["b"]},
    },
)  # fmt: skip
