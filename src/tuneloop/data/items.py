"""One annotated item, whatever tool it is from: what raters saw, what they said, and what kind of answers that is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tuneloop.core import digest, jsonl
from tuneloop.core.conversation import JsonObject
from tuneloop.data.annotations import EMPTY_SAYS_NONE, SEVERAL, Annotation, Kind, Strings


@dataclass(frozen=True)
class Item:
    """What a tool's export holds of one item. `pairs`: which two fields a question compares, left and right."""

    id: str
    data: JsonObject
    annotations: tuple[Annotation, ...]
    kinds: Mapping[str, Kind]
    pairs: Mapping[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    meta: JsonObject = field(default_factory=dict[str, Any])
    notes: tuple[str, ...] = ()
    sent: bool = False
    """Raters sent their annotations off as finished: what they left without a span has none."""

    def of_kinds(self, kinds: Mapping[str, Kind]) -> Item:
        """The same item with the kinds that the whole file shows: several choices at once are always a list then, and
        an empty list that does not say that there is none is no answer."""
        heard: list[Annotation] = []
        nowhere = [question for question, kind in kinds.items() if kind in EMPTY_SAYS_NONE]
        for annotation in self.annotations:
            values: dict[str, Any] = {}
            # an annotation without any value answers where nothing but spans could be said
            if self.sent and not annotation.cancelled and (annotation.values or len(nowhere) == len(kinds)):
                values = {question: [] for question in nowhere}
            for question, value in annotation.values.items():
                kind = kinds.get(question)
                if value != [] or kind in EMPTY_SAYS_NONE:
                    values[question] = [value] if kind in SEVERAL.values() and not isinstance(value, list) else value
            heard.append(replace(annotation, values=values))
        return replace(self, kinds=kinds, annotations=tuple(heard))

    @property
    def unheard(self) -> str:
        """Why an item without an answer has none."""
        if any(annotation.cancelled for annotation in self.annotations):
            return "not annotated: everyone who saw the item skipped it"
        return "not annotated: nobody answered any question"


def item_id(value: Any, data: JsonObject) -> str:
    """The id of an item as text; of items without one, a digest of their data."""
    return digest.short(digest.of_value(data), 16) if value in (None, "") else str(value)


def item_key(*parts: Any) -> bytes:
    """What tells items apart while their records are joined: 16 bytes, however long their texts are."""
    return hashlib.blake2b(jsonl.dump(parts), digest_size=16).digest()


def learn(kinds: dict[str, Kind], question: str, kind: Kind) -> None:
    """Notes what a question was found to ask for: a shape that is sure goes before a string, which may be anything."""
    if kinds.get(question, "string") == "string":
        kinds[question] = kind


def kinds_of(items: Iterable[Item]) -> dict[str, Kind]:
    """The kinds of all questions, with what no row alone shows: whether texts were chosen or written, and whether
    several choices could be made."""
    kinds: dict[str, Kind] = {}
    strings: dict[str, Strings] = {}
    several: set[str] = set()
    for item in items:
        for question, kind in item.kinds.items():
            learn(kinds, question, kind)
            given = [one.values[question] for one in item.annotations if question in one.values]
            if any(isinstance(value, list) and len(value) > 1 for value in given):
                several.add(question)
            if kind == "string":
                seen = strings.setdefault(question, Strings())
                for value in given:
                    for text in value if isinstance(value, list) else [value]:
                        seen.add(text)
    for question, kind in kinds.items():
        decided = strings[question].kind(question) if kind == "string" else kind
        kinds[question] = SEVERAL.get(decided, decided) if question in several else decided
    return kinds
