"""One source of the recipe: its file read, its format recognised, its records made Examples or Drops."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuneloop.core.conversation import Drop, Example, JsonObject, Origin
from tuneloop.data.config import SourceConfig
from tuneloop.data.formats import FORMATS, Format, RowError
from tuneloop.data.formats.auto import Auto
from tuneloop.data.formats.table import Table
from tuneloop.data.layout import Layout
from tuneloop.data.read import read

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
    raw: JsonObject
    """The first row that became an Example, as it stands in the file."""
    example: Example | None

    def __str__(self) -> str:
        sure = "as the recipe says" if self.confidence is None else f"recognised, {self.confidence:.0%} sure"
        head = f"{self.source}: {self.rows:,} rows, format {self.format} ({sure}), {self.encoding or 'Parquet'}"
        lines = [head]
        if self.meta:
            lines.append(f"  not read, kept as meta: {', '.join(self.meta)}")
        for message in self.example.messages if self.example else ():
            shown = " ".join([message.content, *(f"→ {call.name}(…)" for call in message.tool_calls)])
            mark = "*" if message.weight > 0 else " "
            lines.append(f"  {mark}{message.role:<10}{_short(shown)}")
        return "\n".join(lines)


@dataclass
class Loaded:
    """A source's rows: `rows` = examples + drops. `available` counts the file, `limit` and `sample` before."""

    label: str
    path: str
    rows: int
    available: int
    recognition: Recognition
    examples: list[Example] = field(default_factory=list[Example])
    drops: list[Drop] = field(default_factory=list[Drop])
    notes: Counter[str] = field(default_factory=Counter[str])


def load(config: SourceConfig, seed: int, advance: Callable[[int], Any] = lambda rows: None) -> Loaded:
    """Reads a source. Raises DataError where the file, its format or a named column cannot be used.

    `advance` is told how many rows were done.
    """
    raw = read(config.path, config.encoding)
    reader, layout, confidence = _choose(config, raw.records)
    chosen = _chosen(config, len(raw.records), seed)
    name = FORMATS.name_of(reader)
    out = Loaded(config.label, config.path, len(chosen), len(raw.records),
                 Recognition(config.label, name, confidence, raw.encoding, len(chosen), (), {}, None))  # fmt: skip
    first: tuple[JsonObject, Example] | None = None
    for done, row in enumerate(chosen, 1):
        record, origin = raw.records[row], Origin(config.path, row)
        try:
            example = _example(reader, layout, record, origin, out.notes)
        except RowError as error:
            out.drops.append(Drop(record, name, error.reason, origin, error.evidence))
        else:
            problem = unanswered(example)
            if problem:
                out.drops.append(Drop(example, UNANSWERED, problem, origin))
            else:
                out.examples.append(example)
                first = first or (record, example)
        if done % 1000 == 0 or done == len(chosen):
            advance((done - 1) % 1000 + 1)
    shown, example = first or (raw.records[chosen[0]], None)
    meta = tuple(example.meta) if example else ()
    out.recognition = Recognition(config.label, name, confidence, raw.encoding, len(chosen), meta, shown, example)
    return out


def unanswered(example: Example) -> str | None:
    """Why an Example has nothing to learn from, or None."""
    supervised = [(number, message) for number, message in enumerate(example.messages) if message.weight > 0]
    if not supervised:
        return "no message is supervised: there is no answer, or all have weight 0"
    for number, message in supervised:
        if not message.content.strip() and not message.tool_calls:
            return f"the answer is empty (message {number}, {message.role})"
    return None


def _choose(config: SourceConfig, records: list[JsonObject]) -> tuple[Format, Layout, float | None]:
    """The format, found by `auto` if need be, and the layout; naming prompt or response means a table."""
    reader, confidence = config.format, None
    if isinstance(reader, Auto) and (config.template or config.columns.keys() & {"prompt", "response"}):
        reader = FORMATS.make("table")
    layout = Layout(config.columns, config.template, explicit=isinstance(reader, Table))
    layout.check(records, config.label)
    if isinstance(reader, Auto):
        seen = [layout.apply(record)[0] for record in records] if config.columns else records
        name, confidence = reader.choose(seen, config.label)
        reader = FORMATS.make(name)
    return reader, layout, confidence


def _chosen(config: SourceConfig, available: int, seed: int) -> list[int]:
    if config.sample is not None and config.sample < available:
        # by the file's name, not its path: the same recipe draws the same rows in any folder
        return sorted(random.Random(f"{seed} {Path(config.path).name}").sample(range(available), config.sample))
    return list(range(min(available, config.limit or available)))


def _example(reader: Format, layout: Layout, record: JsonObject, origin: Origin, notes: Counter[str]) -> Example:
    named, others = layout.apply(record)
    parts = reader.parse(named)
    if not parts.messages:
        raise RowError("the conversation is empty")
    for number, message in enumerate(parts.messages):
        try:
            message.content.encode()
        except UnicodeEncodeError as error:
            raise RowError(f"message {number} is cut inside a character (half of a surrogate pair)") from error
    notes.update(parts.notes)
    others = {key: value for key, value in others.items() if value is not None}
    return Example(parts.messages, origin, parts.tools, {**others, **parts.meta})


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 90 else f"{line[:60]} … {line[-28:]}"
