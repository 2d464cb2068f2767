"""One source of the recipe: its format recognised, its records made Examples or Drops, piece by piece."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

from tuneloop.core.conversation import Drop, Example, JsonObject, Origin
from tuneloop.core.errors import DataError
from tuneloop.core.plugins import listed
from tuneloop.data.config import SourceConfig
from tuneloop.data.formats import FORMATS, Format, RowError
from tuneloop.data.formats.auto import Auto
from tuneloop.data.formats.table import Table
from tuneloop.data.layout import Layout, implied_format
from tuneloop.data.read import Piece, Raw, open_source

UNANSWERED = "answer"
"""The step that is always on: a row without a supervised message, or with an empty one, teaches nothing."""


@dataclass(frozen=True)
class Recognition:
    """What a source turned out to be, for the console: say it before anything is made of it."""

    source: str
    format: str
    confidence: float | None
    """How sure `auto` was; None where the recipe names the format."""
    encoding: str | None
    rows: int
    meta: tuple[str, ...]
    """Columns that the format did not read; they are kept as meta."""
    used: tuple[str, ...]
    """Columns that `columns:` and `template:` name."""
    notes: tuple[str, ...]
    """What was decided when the file was opened."""
    raw: JsonObject
    """The first row that became an Example, as it stands in the file."""
    example: Example | None

    def __str__(self) -> str:
        sure = "as the recipe says" if self.confidence is None else f"recognised, {self.confidence:.0%} sure"
        lines = [f"{self.source}: {self.rows:,} rows, format {self.format} ({sure}), {self.encoding or 'binary'}"]
        lines += [f"  {note}" for note in self.notes]
        if self.used:
            lines.append(f"  columns used: {listed(self.used)}")
        unread = [name for name in self.meta if name not in self.used]
        if unread:
            lines.append(f"  not read, kept as meta: {listed(unread)}")
        for message in self.example.messages if self.example else ():
            shown = " ".join([message.content, *(f"→ {call.name}(…)" for call in message.tool_calls)])
            mark = "*" if message.weight > 0 else " "
            lines.append(f"  {mark}{message.role:<10}{_short(shown)}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Source:
    """A source whose format is known; picklable, so that any process can read its parts."""

    config: SourceConfig
    format: str
    reader: Format
    parts: tuple[tuple[Piece, ...], ...]
    """What one call of `read` takes: one piece each, or all together where records are joined across the file."""
    recognition: Recognition
    seed: int

    @property
    def label(self) -> str:
        return self.config.label

    @property
    def path(self) -> str:
        return self.config.path

    def read(self, part: Sequence[Piece], notes: Counter[str]) -> Iterator[Example | Drop]:
        """The rows of a part, each an Example or a Drop with its reason; what was decided is counted in `notes`."""
        path, reader, layout = self.path, self.reader, self._layout
        for row, record in self._records(part):
            origin = Origin(path, row)
            try:
                example = _example(reader, layout, record, origin, notes)
            except RowError as error:
                yield Drop(record, self.format, error.reason, origin, error.evidence)
                continue
            problem = unanswered(example)
            yield Drop(example, UNANSWERED, problem, origin) if problem else example

    def _records(self, part: Sequence[Piece]) -> Iterator[tuple[int, JsonObject]]:
        records = chain.from_iterable(piece.records() for piece in part)
        rows, chosen = enumerate(self.reader.join(records), part[0].first), self._chosen
        return rows if chosen is None else ((row, record) for row, record in rows if row in chosen)

    @cached_property
    def _chosen(self) -> range | frozenset[int] | None:
        return _chosen(self.config, self.recognition.rows, self.seed)

    @cached_property
    def _layout(self) -> Layout:
        return Layout(self.config.columns, self.config.template, explicit=isinstance(self.reader, Table))

    def __getstate__(self) -> dict[str, object]:
        return {key: value for key, value in self.__dict__.items() if not key.startswith("_")}  # templates are not


def recognise(config: SourceConfig, seed: int) -> Source:
    """A source's format and first row. Raises DataError where the file, its format or a named column cannot be used."""
    raw = open_source(config.path, config.encoding, limit=config.limit)
    head = raw.head()
    if not head:
        raise DataError(f"{config.path} holds no rows")
    reader, layout, confidence = _choose(config, raw, head)
    name = FORMATS.name_of(reader)
    joined = list(reader.join(raw.records())) if reader.joins else []
    reader = reader.informed(joined or raw.records())
    shown, example = next(_readable(reader, layout, config.path, joined or head), ((joined or head)[0], None))
    found = Recognition(
        config.label, name, confidence, raw.encoding, len(joined) or raw.rows, tuple(example.meta) if example else (),
        layout.used, raw.notes, shown, example,
    )  # fmt: skip
    parts = (raw.pieces,) if reader.joins else tuple((piece,) for piece in raw.pieces)
    return Source(config, name, reader, parts, found, seed)


def unanswered(example: Example) -> str | None:
    """Why an Example has nothing to learn from, or None."""
    supervised = False
    for number, message in enumerate(example.messages):
        if message.role == "assistant" if message.train is None else message.train > 0:  # its weight, asked of each
            supervised = True
            if not message.tool_calls and (not message.content or message.content.isspace()):
                return f"the answer is empty (message {number}, {message.role})"
    return None if supervised else "no message is supervised: there is no answer, or all have weight 0"


def _choose(config: SourceConfig, raw: Raw, head: list[JsonObject]) -> tuple[Format, Layout, float | None]:
    """The format, found by `auto` if need be, and the layout; naming prompt or response means a table."""
    reader, confidence = config.format, None
    if isinstance(reader, Auto) and (name := implied_format(config.columns, config.template)):
        reader = FORMATS.make(name)
    layout = Layout(config.columns, config.template, explicit=isinstance(reader, Table))
    layout.check(raw, config.label)
    if isinstance(reader, Auto):
        seen = [layout.apply(record)[0] for record in head] if config.columns else head
        name, confidence = reader.choose(seen, config.label)
        reader = FORMATS.make(name)
    return reader, layout, confidence


def _readable(
    reader: Format, layout: Layout, path: str, records: list[JsonObject]
) -> Iterator[tuple[JsonObject, Example]]:
    for record in records:
        try:
            example = _example(reader, layout, record, Origin(path, 0), Counter())
        except RowError:
            continue  # it becomes a Drop when the rows are read
        if not unanswered(example):
            yield record, example


def _chosen(config: SourceConfig, available: int, seed: int) -> range | frozenset[int] | None:
    if config.sample is not None and config.sample < available:
        # by the file's name, not its path: the same recipe draws the same rows in any folder
        return frozenset(random.Random(f"{seed} {Path(config.path).name}").sample(range(available), config.sample))
    return range(config.limit) if config.limit is not None else None


def _example(reader: Format, layout: Layout, record: JsonObject, origin: Origin, notes: Counter[str]) -> Example:
    named, others = layout.apply(record)
    parts = reader.parse(named)
    if not parts.messages:
        raise RowError("the conversation is empty")
    for number, message in enumerate((*parts.messages, *parts.rejected) if parts.rejected else parts.messages):
        if not message.content.isascii():
            _reject_half(number, message.content)
    if parts.notes:
        notes.update(parts.notes)
    meta = parts.meta
    if others:
        meta = {**{key: value for key, value in others.items() if value is not None}, **meta}
    return Example(parts.messages, origin, parts.tools, meta, parts.rejected)


def _reject_half(number: int, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RowError(f"message {number} is cut inside a character (half of a surrogate pair)") from error


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 90 else f"{line[:60]} … {line[-28:]}"
