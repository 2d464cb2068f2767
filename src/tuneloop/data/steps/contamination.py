"""Step `contamination`: drops rows that have text in common with what the model will be evaluated on."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from pydantic import Field, PositiveInt

from tuneloop.core.conversation import Example, JsonObject
from tuneloop.core.errors import DataError
from tuneloop.core.recipe import InputPath
from tuneloop.data.steps import Rejection, RowStep

if TYPE_CHECKING:
    from tuneloop.data.overlap import Index, Item

LOOKED_AT = 200  # records by which the format of an evaluation file is recognised


class Contamination(RowStep):
    """Drops rows that share a long enough run of words with a question or answer of evaluation files.

    The run is 13 words, or 13 Chinese characters; of a shorter question, all of it. A phrase in many evaluation rows
    ("Is this review positive or negative?") is their template and does not count. Compared without regard to case,
    punctuation, spaces and full or half width. Such rows leave; dropped.jsonl shows what they share with which row.
    """

    against: list[InputPath] = Field(min_length=1)
    """The evaluation files, in any format that sources may have; of a file in no known format, all its texts."""
    words: PositiveInt = Field(default=13, ge=5)
    """How many words in a row must be the same, in writings with words."""
    characters: PositiveInt = Field(default=13, ge=8)
    """How many must be the same where Chinese or Japanese characters are among them."""

    def files(self) -> list[str]:
        return self.against

    def look(self, example: Example) -> Example | Rejection:
        index = _index(tuple(self.against), self.words, self.characters)
        for number, message in enumerate(example.messages):
            if message.role == "system":
                continue
            found = index.find(message.content, asked=message.role in ("user", "text"))
            if found is not None:
                evidence = {"message": number, "file": found.file, "row": found.row, "span": found.span}
                return Rejection("it has text in common with an evaluation file", evidence)
        return example


@cache
def _index(paths: tuple[str, ...], words: int, characters: int) -> Index:
    """Made once a process. Raises DataError for a file that cannot be read."""
    from tuneloop.data.overlap import Index

    return Index((item for path in paths for item in _items(path)), words, characters)


def _items(path: str) -> Iterator[Item]:
    """The texts of an evaluation file."""
    from tuneloop.data.formats import FORMATS, RowError
    from tuneloop.data.formats.auto import Auto
    from tuneloop.data.overlap import Item
    from tuneloop.data.read import open_source

    raw = open_source(path)
    try:
        reader = FORMATS.make(Auto().choose(list(islice(raw.records(), LOOKED_AT)), path)[0])
    except DataError:
        reader = None
    if reader is not None:
        reader = reader.informed(reader.join(raw.records()))
    for row, record in enumerate(raw.records() if reader is None else reader.join(raw.records())):
        try:
            messages = () if reader is None else reader.parse(record).messages
        except RowError:
            messages = ()
        if messages:
            for message in messages:
                if message.role in ("user", "text", "assistant"):
                    yield Item(path, row, message.content, message.role != "assistant")
        else:
            for text in _texts(record):
                yield Item(path, row, text, True)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        inner = cast("JsonObject", value).values() if isinstance(value, dict) else cast("list[Any]", value)
        for one in inner:
            yield from _texts(one)
