"""The steps over all rows, pass by pass and shard by shard: never all rows in memory.

A pass reads a part of a source, or a shard of the pass before, sends each row through row steps, computes the keys of
the set steps that follow, and writes a shard. Then the set steps decide over all keys. What they take out is listed by
the next pass, or at the end (prepare.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tuneloop.core import jsonl
from tuneloop.core.conversation import Drop, Example, JsonObject
from tuneloop.data import shards
from tuneloop.data.source import Source
from tuneloop.data.steps import STEPS, Rejection, RowStep, SetStep, Step
from tuneloop.data.trays import Tray, Trays, dropped
from tuneloop.data.workers import Executor, each

if TYPE_CHECKING:
    from tuneloop.data.read import Piece
    from tuneloop.data.steps import Keys

Named = tuple[str, Any]  # a step with its name, which other processes could not look up
BATCH = 1_000
"""Rows whose keys are computed one step after the other: their normalised texts are still remembered then."""
Segment = tuple[tuple[Named, ...], tuple[Named, ...]]  # row steps, and the set steps after them


@dataclass(frozen=True)
class Part:
    """A part of a source, to be read."""

    source: Source
    pieces: tuple[Piece, ...]

    @property
    def rows(self) -> int:
        return sum(piece.count for piece in self.pieces)


@dataclass(frozen=True)
class Task:
    """One call of `_work`: what a worker process is sent."""

    given: Part | Tray
    row_steps: tuple[Named, ...]
    set_steps: tuple[Named, ...]
    describe: bool
    target: Path


@dataclass
class Refined:
    """All rows of a group of sources after its steps, and what the steps found."""

    trays: list[Tray] = field(default_factory=list[Tray])
    findings: list[JsonObject] = field(default_factory=list[JsonObject])


def refine(
    sources: Sequence[Source],
    steps: Sequence[Step],
    folder: Path,
    executor: Executor = "auto",
    advance: Callable[[int], None] = lambda rows: None,
    extra: Sequence[Named] = (),
) -> Refined:
    """All rows of the sources through the steps, in files below `folder`.

    `extra`: set steps that decide nothing here and only leave their keys as columns "name.key" (for the split).
    `advance` is told how many rows were done, in each of `passes_of(steps)` passes.
    """
    folder.mkdir(parents=True)
    given: list[Part | Tray] = [Part(source, part) for source in sources for part in source.parts]
    out = Refined()
    segments = segments_of(steps)
    for number, (row_steps, set_steps) in enumerate(segments):
        last = number == len(segments) - 1
        keys = (*set_steps, *(extra if last else ()))
        tasks = [Task(one, row_steps, keys, last, folder / f"{number}-{index:05}") for index, one in enumerate(given)]
        out.trays = []
        for task, tray in zip(tasks, each(_work, tasks, executor, sum(task.given.rows for task in tasks)), strict=True):
            tray.source = task.given.source  # not the copy that another process sent back
            out.trays.append(tray)
            if isinstance(task.given, Tray):
                task.given.shard.path.unlink()
            advance(task.given.rows)
        for name, step in set_steps:
            out.findings += decide(Trays(out.trays), name, step)
        given = list(out.trays)
    return out


def segments_of(steps: Sequence[Step]) -> list[Segment]:
    """Runs of row steps, each with the set steps after it: one pass each, and at least one."""
    out: list[tuple[list[Named], list[Named]]] = [([], [])]
    for number, step in enumerate(steps):
        named = (STEPS.name_of(step), step)
        if isinstance(step, SetStep):
            out[-1][1].append((f"{named[0]}#{number}", step))  # the same step may come twice
        else:
            if out[-1][1]:
                out.append(([], []))
            out[-1][0].append(named)
    return [(tuple(rows), tuple(sets)) for rows, sets in out]


def _work(task: Task) -> Tray:
    """One shard of one pass."""
    notes: Counter[str] = Counter()
    kept: list[Example] = []
    history: list[tuple[bool, int]] = []
    drops: list[Drop] = []
    for example, (repaired, repeat) in _rows(task.given, notes):
        after = example if isinstance(example, Drop) else _through(task.row_steps, example)
        if isinstance(after, Drop):
            drops.append(after)
        else:
            assert isinstance(example, Example)
            changed = after.messages != example.messages or after.tools != example.tools
            changed = changed or after.rejected != example.rejected
            kept.append(after)
            history.append((repaired or changed, repeat))
    parts = [_columns(task, kept[start : start + BATCH]) for start in range(0, len(kept), BATCH)] or [
        _columns(task, [])
    ]
    columns: Keys = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    columns |= {
        "repaired": np.array([repaired for repaired, _ in history], bool),
        "repeat": np.array([repeat for _, repeat in history], np.uint32),
    }
    tray = Tray(shards.write(task.target.with_suffix(".jsonl"), kept, columns), task.given.source, notes=notes)
    if isinstance(task.given, Tray):
        tray.drops, tray.counted, tray.notes = task.given.drops, task.given.counted, task.given.notes
    if drops:
        path = task.target.with_suffix(".drops")
        jsonl.write_lines(path, (drop.to_json() for drop in drops))
        tray.drops.append(path)
        tray.counted.update((drop.step, drop.reason) for drop in drops)
    return tray


def _columns(task: Task, kept: Sequence[Example]) -> Keys:
    """What is known of some rows: their places, the keys of the set steps, and what split and card need."""
    columns: Keys = shards.places(kept)
    for name, step in task.set_steps:
        found = step.keys(kept)
        assert all(len(array) == len(kept) for array in found.values()), f"step {name}: keys for another number of rows"
        columns |= {f"{name}.{key}": array for key, array in found.items()}
    return columns | shards.described(kept) if task.describe else columns


def _rows(given: Part | Tray, notes: Counter[str]) -> Iterator[tuple[Example | Drop, tuple[bool, int]]]:
    """(row, (whether an earlier pass repaired it, how often it stands in train))."""
    if isinstance(given, Part):
        for row in given.source.read(given.pieces, notes):
            yield row, (False, 1)
        return
    columns = given.shard.columns
    history = zip(columns["repaired"].tolist(), columns["repeat"].tolist(), strict=True)
    for index, (example, before) in enumerate(zip(given.shard.examples(), history, strict=True)):
        yield dropped(example, *given.gone[index]) if index in given.gone else example, before


def _through(steps: Sequence[Named], example: Example) -> Example | Drop:
    found = example
    for name, step in steps:
        assert isinstance(step, RowStep)
        result = step.look(found)
        if isinstance(result, Rejection):
            return dropped(found, name, result)
        found = result
    return found


def decide(trays: Trays, name: str, step: SetStep) -> Sequence[JsonObject]:
    """One set step over the rows still there; what it takes out is noted in the trays. Returns its findings."""
    numbers = trays.left()
    verdict = step.decide(trays.view(name, numbers))
    assert all(0 <= index < len(numbers) for index in (*verdict.rejected, *verdict.repeats)), f"{name}: no such row"
    for index, rejection in verdict.rejected.items():
        tray, inside = trays.locate(int(numbers[index]))
        tray.gone[inside] = (name.partition("#")[0], rejection)
    for index, times in verdict.repeats.items():
        tray, inside = trays.locate(int(numbers[index]))
        tray.shard.columns["repeat"][inside] = times
    return verdict.findings
