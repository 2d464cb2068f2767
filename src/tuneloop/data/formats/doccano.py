"""Format `doccano`: the JSONL (or JSON) export of doccano, members' files of a zip joined by document."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any, ClassVar, Literal

from pydantic import field_validator

from tuneloop.core.conversation import JsonObject
from tuneloop.data.annotated import AnnotationFormat, Source
from tuneloop.data.annotations import Agree, Annotation, Kind
from tuneloop.data.asked import Asked, Units, cut
from tuneloop.data.formats import RowError
from tuneloop.data.items import Item, item_id, item_key, learn
from tuneloop.data.reading import MEMBER

QUESTIONS = ("label", "labels", "cats", "entities", "relations")
TOGETHER = "all"
"""The file that a collaborative project exports: it does not say who annotated."""


class Doccano(AnnotationFormat):
    """Documents with labels, texts, spans, intents and slots, or relations, as doccano exports them.

    The file name of a member (`alice.jsonl` in the zip) is the rater; `all.jsonl` has none.
    """

    joins: ClassVar = True
    shown: ClassVar = ("text",)

    task: Literal["auto", "classification", "seq2seq", "sequence_labelling"] = "auto"
    """What `label` holds: labels to choose from, or written texts, which look the same in a small file."""
    confirmed: bool = False
    """The export holds confirmed documents only: an empty list of spans then says that there is none."""
    offsets: Units = "utf-16"
    """What places of spans count: doccano's page counts in UTF-16 units (two for an emoji), in a project with "count
    grapheme clusters as one character" in graphemes; spans that a script imported count in characters."""
    rater: str = ""
    """Who annotated, for a file outside its zip."""

    @field_validator("agree")
    @classmethod
    def _without_times(cls, value: Agree) -> Agree:
        if value == "newest":
            raise ValueError("doccano exports no times; choose majority, unanimous or first, or name `trusted` raters")
        return value

    def join(self, records: Iterable[JsonObject]) -> Iterable[JsonObject]:
        """The records of all members by id and text: an archive may hold several projects, each with an item 1."""
        joined: dict[bytes, JsonObject] = {}
        members: dict[str, str] = {}
        for record in records:
            text = record.get("text", record.get("data"))
            key = item_key(record.get("id"), text)
            file = str(record.get(MEMBER) or "")
            member = members.setdefault(file, PurePosixPath(file).stem)  # a user may be called john.doe
            said = {name: record[name] for name in QUESTIONS if record.get(name) not in (None, "")}
            said |= {"Comments": record["Comments"]} if record.get("Comments", []) != [] else {}
            if key not in joined:
                unread = ("id", "text", MEMBER, "Comments", *QUESTIONS, *(() if "text" in record else ("data",)))
                data = {name: value for name, value in record.items() if name not in unread}
                joined[key] = {"id": record.get("id"), "data": {"text": text, **data}, "annotations": []}
            joined[key]["annotations"].append({"rater": member, **said})
        for row in joined.values():
            for annotation in row["annotations"]:
                # somebody may be called "all", but then there are other members
                alone = annotation["rater"] in ("", TOGETHER) and len(members) == 1
                annotation["rater"] = self.rater if alone else annotation["rater"]
        return joined.values()

    def item(self, record: JsonObject) -> Item:
        data, text = record["data"], record["data"]["text"]
        if not isinstance(text, str):
            raise RowError("no document: the record has no 'text'", keys=list(data))
        kinds: dict[str, Kind] = {}
        annotations = [self._annotation(given, text, kinds) for given in record["annotations"]]
        comments = [one for given in record["annotations"] for one in _as_list(given.get("Comments")) if one]
        meta = {"id": record["id"], "comments": comments or None}
        return Item(item_id(record["id"], data), data, tuple(annotations), kinds, meta=meta)

    def sources(self, item: Item, asked: Asked) -> list[Source]:
        """Intents with slots, and entities with relations, are one answer."""
        for names in (("cats", "entities"), ("entities", "relations")):
            if all(name in item.kinds for name in names):
                return [Source("question", names)]
        return [Source("question", (name,)) for name in QUESTIONS if name in item.kinds] or super().sources(item, asked)

    def likeness(self, record: JsonObject) -> float:
        if not isinstance(record.get("text"), str) or "id" not in record:
            return 0.0
        if isinstance(record.get("entities"), list) and ("cats" in record or "relations" in record):
            return 1.0
        label = record.get("label", record.get("labels"))
        if isinstance(label, list) and all(isinstance(one, str) for one in label):
            return 1.0 if "Comments" in record or MEMBER in record else 0.95
        if isinstance(label, list) and all(_is_triple(one) for one in label):
            return 1.0
        return 0.95 if isinstance(label, str) and isinstance(record.get("Comments"), str) else 0.0

    def _annotation(self, given: JsonObject, text: str, kinds: dict[str, Kind]) -> Annotation:
        values: dict[str, Any] = {}
        # where something else is said about the document, an empty list is no open question any more
        seen = self.confirmed or any(given.get(name) for name in QUESTIONS)
        entities = [self._span(one, text) for one in _as_list(given.get("entities"))]
        for name in QUESTIONS:
            if name not in given:
                continue
            value = _as_list(given[name])
            if name == "entities":
                learn(kinds, name, "spans")
                values[name] = [span for _, span in entities]
            elif name == "relations":
                learn(kinds, name, "relations")
                values[name] = [_relation(one, dict(entities)) for one in value]
            elif value and all(_is_triple(one) for one in value):
                learn(kinds, name, "spans")
                values[name] = [span for _, span in (self._span(one, text) for one in value)]
            else:
                labels = [_label(one, given) for one in value]
                learn(kinds, name, self._kind(name))
                values[name] = labels[0] if len(labels) == 1 else labels
        return Annotation(given["rater"], {name: value for name, value in values.items() if value or seen})

    def _kind(self, name: str) -> Kind:
        kinds: dict[str, Kind] = {"classification": "choice", "seq2seq": "text", "sequence_labelling": "spans"}
        return "choice" if name == "cats" else kinds.get(self.task, "string")

    def _span(self, entity: Any, text: str) -> tuple[str, JsonObject]:
        """(id, span) of [start, end, label] or of doccano's object."""
        if _is_triple(entity):
            start, end, label, number = *entity, ""
        elif isinstance(entity, dict):
            start, end = entity.get("start_offset"), entity.get("end_offset")
            label, number = str(entity.get("label")), str(entity.get("id"))
        else:
            raise RowError("an entity is neither [start, end, label] nor an object", entity=entity)
        return number, {"start": start, "end": end, "text": cut(text, start, end, self.offsets), "label": label}


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value in (None, "") else [value]


def _is_triple(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and isinstance(value[0], int) and isinstance(value[2], str)


def _label(value: Any, given: JsonObject) -> str:
    if isinstance(given.get("Comments"), str) and "#" in str(value):  # only the CSV export has comments as text
        raise RowError("doccano's CSV joins labels by '#', so they cannot be told apart: export JSONL", label=value)
    return str(value)


def _relation(relation: Any, entities: dict[str, JsonObject]) -> JsonObject:
    ends = [str(relation.get(key)) if isinstance(relation, dict) else "" for key in ("from_id", "to_id")]
    if not all(end in entities for end in ends):
        raise RowError("a relation names an entity that is not in the record", relation=relation)
    return {"head": entities[ends[0]], "type": str(relation.get("type")), "tail": entities[ends[1]]}
