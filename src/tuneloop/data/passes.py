"""The steps over all rows, pass by pass and shard by shard: never all rows in memory.

A pass reads a part of a source, or a shard of the pass before, sends each row through row steps, computes the keys of
the set steps that follow, and writes a shard. Then the set steps decide over all keys. What they take out is listed by
the next pass, or at the end (prepare.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tuneloop.core import jsonl
from tuneloop.core.conversation import Drop, Example, JsonObject
from tuneloop.core.machine import without_collector
from tuneloop.data import shards
from tuneloop.data.source import Source
from tuneloop.data.steps import STEPS, Rejection, RowStep, SetStep, Step
from tuneloop.data.trays import Ledger, Left, Tray, Trays, dropped, left_of
from tuneloop.data.workers import Executor, each

if TYPE_CHECKING:
    from tuneloop.data.read import Piece
    from tuneloop.data.steps import Keys

Named = tuple[str, Any]  # a step with its name, which other processes could not look up
BATCH = 2_000
"""Rows that go through the steps and whose keys are computed together."""
HELD = 32 << 20
"""Bytes of rows that stay in memory from one pass to the next (as objects and lines, about four times as many)."""
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


@without_collector()
def refine(
    sources: Sequence[Source],
    steps: Sequence[Step],
    folder: Path,
    executor: Executor = "auto",
    advance: Callable[[int], None] = lambda rows: None,
    extra: Sequence[SetStep] = (),
) -> Refined:
    """All rows of the sources through the steps, in files below `folder`.

    `extra`: set steps that decide nothing here and only leave their keys as columns (for the split).
    `advance` is told how many rows were done, in each of `passes_of(steps)` passes.
    """
    folder.mkdir(parents=True)
    given: list[Part | Tray] = [Part(source, part) for source in sources for part in source.parts]
    out = Refined()
    segments = segments_of(steps)
    for number, (row_steps, set_steps) in enumerate(segments):
        last = number == len(segments) - 1
        keys = {key_name(step): step for step in (*(step for _, step in set_steps), *(extra if last else ()))}
        tasks = [
            Task(one, row_steps, tuple(keys.items()), last, folder / f"{number}-{index:05}")
            for index, one in enumerate(given)
        ]
        out.trays, room = [], HELD
        for task, tray in zip(tasks, each(_work, tasks, executor, sum(task.given.rows for task in tasks)), strict=True):
            tray.source = task.given.source  # not the copy that another process sent back
            out.trays.append(tray)
            room -= tray.size
            if room < 0:
                tray.let_go()
            if isinstance(task.given, Tray):
                task.given.shard.remove()
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


def key_name(step: SetStep) -> str:
    """What the columns of a set step's keys are called before the dot; the same for steps that share their keys."""
    return f"{STEPS.name_of(step)} {jsonl.dump(step.key_options()).decode()}"


@dataclass(frozen=True)
class _Batch:
    """Rows in a pass. `repaired` [N]: by an earlier pass. `repeat` [N]: how often they stand in train.

    `place` [N] and `lines`: their indices in the shard of the pass before and how they stand there; -1 and None where
    there is none or a step has changed the row.
    """

    rows: list[Example | Drop]
    repaired: np.ndarray
    repeat: np.ndarray
    place: np.ndarray
    lines: list[bytes | None]


@without_collector()
def _work(task: Task) -> Tray:
    """One shard of one pass."""
    notes, counted = Counter[str](), Counter[tuple[str, str]]()
    left: list[Left] = []
    out = shards.Writer(task.target.with_suffix(".jsonl"))
    for batch in _batches(task.given, notes):
        after = _through(task.row_steps, batch)
        drops = [(row, line) for row, line in zip(after.rows, after.lines, strict=True) if isinstance(row, Drop)]
        left += [left_of(row, line) for row, line in drops]
        counted.update((row.step, row.reason) for row, _ in drops)
        examples = [row for row in after.rows if isinstance(row, Example)]
        kept = np.flatnonzero([isinstance(row, Example) for row in after.rows])
        lines = shards.lines_of(examples, [after.lines[index] for index in kept.tolist()])
        out.add(examples, lines, _columns(task, after, kept, examples))
    tray = Tray(out.shard(), task.given.source, notes=notes)
    if isinstance(task.given, Tray):
        tray.drops, tray.counted, tray.notes = task.given.drops, task.given.counted, task.given.notes
    if left:
        path = task.target.with_suffix(".drops")
        path.write_bytes(b"".join([one.line + b"\n" for one in left]))
        tray.drops.append(Ledger(path, left))
        tray.counted.update(counted)
    return tray


def _columns(task: Task, batch: _Batch, kept: np.ndarray, examples: Sequence[Example]) -> Keys:
    """What is known of the kept rows: their places, the keys of the set steps, and what split and card need."""
    before, place = task.given.shard.columns if isinstance(task.given, Tray) else {}, batch.place[kept]
    columns: Keys = {
        "repaired": batch.repaired[kept],
        "repeat": batch.repeat[kept],
        **_computed(shards.places, "", {name: before[name] for name in shards.PLACES if before}, place, examples),
    }
    for name, step in task.set_steps:
        known = {key: column for key, column in before.items() if key.startswith(f"{name}.")}
        columns |= _computed(step.keys, f"{name}.", known, place, examples)
    return columns | shards.described(examples) if task.describe else columns


def _computed(
    keys: Callable[[Sequence[Example]], Keys],
    prefix: str,
    known: Keys,
    place: np.ndarray,
    examples: Sequence[Example],
) -> Keys:
    """Columns of some rows; those known of rows that have not changed since the pass before are taken over."""
    new = np.flatnonzero(place < 0) if known else np.arange(len(place))
    found = {f"{prefix}{key}": array for key, array in keys([examples[index] for index in new.tolist()]).items()}
    assert all(len(array) == len(new) for array in found.values()), f"{prefix} keys for another number of rows"
    if not known:
        return found
    columns: Keys = {}
    for name, array in found.items():
        columns[name] = known[name][place].astype(np.result_type(known[name], array))
        columns[name][new] = array
    return columns


def _batches(given: Part | Tray, notes: Counter[str]) -> Iterator[_Batch]:
    """All rows, BATCH at a time; at least one batch."""
    if isinstance(given, Part):
        read, rows = given.source.read(given.pieces, notes), None
        while rows is None or len(rows) == BATCH:
            rows = list(islice(read, BATCH))
            count = len(rows)
            yield _Batch(rows, np.zeros(count, bool), np.ones(count, np.uint32), np.full(count, -1), [None] * count)
        return
    examples, lines, columns = given.shard.examples(), given.shard.lines(), given.shard.columns
    for start in range(0, max(1, given.rows), BATCH):
        here = slice(start, start + BATCH)
        rows = [
            dropped(example, *given.gone[index]) if index in given.gone else example
            for index, example in enumerate(islice(examples, BATCH), start)
        ]
        place = np.arange(start, start + len(rows))
        yield _Batch(rows, columns["repaired"][here], columns["repeat"][here], place, list(islice(lines, BATCH)))


def _through(steps: Sequence[Named], batch: _Batch) -> _Batch:
    """The rows after some steps, in their order."""
    rows = list(batch.rows)
    left = [index for index, row in enumerate(rows) if isinstance(row, Example)]
    for name, step in steps:
        assert isinstance(step, RowStep)
        examples = [row for index in left if isinstance(row := rows[index], Example)]
        for index, example, result in zip(left, examples, step.look_all(examples), strict=True):
            if result is not example:
                rows[index] = dropped(example, name, result) if isinstance(result, Rejection) else result
        left = [index for index in left if isinstance(rows[index], Example)]
    changed = [index for index, (row, before) in enumerate(zip(rows, batch.rows, strict=True)) if row is not before]
    repaired, place, lines = batch.repaired.copy(), batch.place.copy(), list(batch.lines)
    place[changed] = -1
    for index in changed:
        lines[index] = None
        repaired[index] |= _is_repaired(batch.rows[index], rows[index])
    return _Batch(rows, repaired, batch.repeat, place, lines)


def _is_repaired(before: Example | Drop, after: Example | Drop) -> bool:
    if isinstance(after, Drop) or isinstance(before, Drop):
        return False
    return any(
        new is not old and new != old
        for new, old in (
            (after.messages, before.messages), (after.tools, before.tools), (after.rejected, before.rejected)
        )
    )  # fmt: skip


def decide(trays: Trays, name: str, step: SetStep) -> Sequence[JsonObject]:
    """One set step over the rows still there; what it takes out is noted in the trays. Returns its findings."""
    numbers = trays.left()
    verdict = step.decide(trays.view(key_name(step), numbers))
    assert all(0 <= index < len(numbers) for index in (*verdict.rejected, *verdict.repeats)), f"{name}: no such row"
    for index, rejection in verdict.rejected.items():
        tray, inside = trays.locate(int(numbers[index]))
        tray.gone[inside] = (name.partition("#")[0], rejection)
    for index, times in verdict.repeats.items():
        tray, inside = trays.locate(int(numbers[index]))
        tray.shard.columns["repeat"][inside] = times
    return verdict.findings
