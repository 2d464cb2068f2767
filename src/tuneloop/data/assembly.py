"""From refined rows to the stage's files and to the facts of the audit: the last pass, which copies lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import polars as pl

from tuneloop.core import jsonl
from tuneloop.core.conversation import Example, JsonObject
from tuneloop.core.machine import without_collector
from tuneloop.data.config import DataConfig
from tuneloop.data.facts import SAMPLE, SPLITS, Facts, Measure, SourceFacts
from tuneloop.data.findings import finding
from tuneloop.data.passes import Refined, key_name
from tuneloop.data.source import Source
from tuneloop.data.split import OUT, STEP, TRAIN, Columns, Division, divide, near
from tuneloop.data.steps import STEPS, Rejection, Step
from tuneloop.data.trays import Left, Trays

MEASURED = 2_000
"""Rows whose tokens are counted for the forecast: known to about ± 2 % of the rows."""

MANY_DRAWN = 0.05
"""Of all rows: as many that cannot be tested on because of another source are worth a look."""

SCHEMA: dict[str, type[pl.DataType]] = {
    "split": pl.String, "source": pl.String, "row": pl.UInt32, "id": pl.String, "language": pl.String,
    "prompt_words": pl.Int32, "answer_words": pl.Int32, "label": pl.String, "cluster": pl.Int64, "repaired": pl.Boolean,
    "prompt": pl.UInt64,
}  # fmt: skip


@without_collector()
def assemble(
    config: DataConfig,
    groups: Mapping[str, list[Source]],
    refined: Mapping[str, Refined],
    folder: Path,
    measure: Measure | None,
) -> Facts:
    """Divides the rows, writes train, val, test and dropped.jsonl, and gathers what the audit asks."""
    trays = Trays([tray for group in refined.values() for tray in group.trays])
    numbers, division = _divide(config, refined, trays)
    _write(folder, trays, numbers, division, config.steps)
    facts = _facts(config, groups, refined, trays, numbers, division, measure)
    for tray in trays:
        tray.remove()  # or the collector would look through all rows as soon as it is back
    return facts


def _divide(config: DataConfig, refined: Mapping[str, Refined], trays: Trays) -> tuple[np.ndarray, Division]:
    """The numbers of the rows that the steps left, and their fates."""
    numbers = trays.left()
    order = {"sources": 0, "val": 1, "test": 2}
    group = np.repeat([order[name] for name, found in refined.items() for _ in found.trays], np.diff(trays.starts))
    steps = near() if config.split.together == "near" else []
    found = [step.decide(trays.view(key_name(step), numbers)).clusters for step in steps]
    clusters = [one for one in found if one is not None]
    column = {name: trays.column(name)[numbers] for name in
              ("id", "prompt_key", "parents", "label", "language", "prompt_words", "answer_words")}  # fmt: skip
    words = column.pop("prompt_words") + column.pop("answer_words")
    only = np.repeat([tray.source.config.train_only for tray in trays], np.diff(trays.starts)).astype(bool)
    sources = {id(tray.source): number for number, tray in enumerate(trays)}
    source = np.repeat([sources[id(tray.source)] for tray in trays], np.diff(trays.starts))
    columns = Columns(
        group=group[numbers], source=source[numbers], train_only=only[numbers], clusters=clusters, words=words, **column
    )
    return numbers, divide(columns, config.split, [name for name in refined if name != "sources"])


def _write(folder: Path, trays: Trays, numbers: np.ndarray, division: Division, steps: Sequence[Step]) -> None:
    """The rows' lines into the files of their splits, and everything that left into dropped.jsonl."""
    for index, (twin, name) in division.twins.items():
        tray, inside = trays.locate(int(numbers[index]))
        evidence = {"same": trays.place(int(numbers[twin]))}
        tray.gone[inside] = (STEP, Rejection(f"says or asks the same as a row of {name}, or nearly", evidence))
    fates = np.full(trays.rows, OUT)
    fates[numbers] = division.fate
    with ExitStack() as stack:
        files = [stack.enter_context(jsonl.replacing(folder / f"{name}.jsonl")) for name in SPLITS]
        for tray, start in zip(trays, trays.starts.tolist(), strict=False):
            lines, fate, repeat = (
                list(tray.shard.lines()),
                fates[start : start + tray.rows],
                tray.shard.columns["repeat"],
            )
            for split, file in enumerate(files):
                rows = np.flatnonzero(fate == split)
                times = repeat[rows] if split == TRAIN else np.ones(len(rows), np.uint32)
                file.writelines([lines[row] for row in np.repeat(rows, times).tolist()])
    hiding = [step for step in steps if type(step).redact is not Step.redact]
    with jsonl.replacing(folder / "dropped.jsonl") as file:
        for tray in trays:
            file.writelines([line + b"\n" for line in _redacted(tray.all_drops(), hiding)])


def _redacted(left: Sequence[Left], hiding: Sequence[Step]) -> Iterator[bytes]:
    """Lines of dropped.jsonl with what the steps hide hidden, in the rows as in the evidence."""
    if not hiding:
        yield from (one.line for one in left)
        return
    lines = [one.line for one in left]
    doubts = [step.may_redact(lines) for step in hiding]
    for line, *doubtful in zip(lines, *doubts, strict=True):
        yield _hidden(line, hiding) if any(doubtful) else line


def _hidden(line: bytes, hiding: Sequence[Step]) -> bytes:
    drop = jsonl.parse_dumped(line)
    said = shown = {key: drop[key] for key in ("example", "reason", "evidence")}
    for step in hiding:
        shown = step.redact(shown)
    if shown is said:
        return line
    example = shown["example"]
    if example.get("origin") == drop["origin"]:  # an Example, no raw row
        # the digest of what was there would let anybody try values until one fits
        shown = {**shown, "example": {**example, "id": Example.from_json(example).id}}
    return jsonl.dump({**drop, **shown})


def _facts(
    config: DataConfig,
    groups: Mapping[str, list[Source]],
    refined: Mapping[str, Refined],
    trays: Trays,
    numbers: np.ndarray,
    division: Division,
    measure: Measure | None,
) -> Facts:
    """What the audit reads: columns of all kept rows, a sample of whole ones, the ledger's numbers."""
    kept = division.fate >= 0
    rows = numbers[kept]
    column = {name: trays.column(name)[rows] for name in
              ("row", "id", "language", "prompt_words", "answer_words", "label", "repaired", "prompt_key")}  # fmt: skip
    paths = np.repeat(np.array([tray.source.path for tray in trays], object), np.diff(trays.starts))
    table = pl.DataFrame({
        "split": np.array(SPLITS, object)[division.fate[kept]].tolist(),
        "source": paths[rows].tolist(),
        "row": column["row"],
        "id": _hexadecimal(column["id"]),
        "language": column["language"].tolist(),
        "prompt_words": column["prompt_words"],
        "answer_words": column["answer_words"],
        "label": [label or None for label in column["label"].tolist()],
        "cluster": division.unit[kept],
        "repaired": column["repaired"],
        "prompt": column["prompt_key"],
    }, schema=SCHEMA)  # fmt: skip
    sampled = np.sort(np.argsort(column["id"], kind="stable")[:SAMPLE])  # ids are digests: a sample that stays
    examples = trays.read(rows[sampled].tolist())
    splits = [SPLITS[fate] for fate in division.fate[kept][sampled]]
    dropped: Counter[tuple[str, str, str]] = Counter()
    for tray in trays:
        for (step, reason), count in tray.counted.items():
            dropped[tray.source.path, step, reason] += count
        dropped.update((tray.source.path, step, rejection.reason) for step, rejection in tray.gone.values())
    found = [one for group in refined.values() for one in group.findings]
    return Facts(
        sources=[_source_facts(source, name, trays) for name, group in groups.items() for source in group],
        table=table,
        sample=list(zip(splits, examples, strict=True)),
        dropped=dropped,
        rows_in=sum(tray.rows_in for tray in trays),
        findings=[*found, *_templates(trays, numbers, division), *_drawn(trays, numbers, division)],
        steps=[(STEPS.name_of(step), step.model_dump(mode="json")) for step in config.steps],
        shares={name: 1.0 if name in groups else getattr(config.split, name) for name in SPLITS},
        forecast=measure(examples[:MEASURED]) if measure is not None and examples else None,
    )


def _hexadecimal(ids: np.ndarray) -> list[str]:
    """Ids, which are 64 bits, as they are written."""
    digits = ids.astype(">u8").tobytes().hex()
    return [digits[start : start + 16] for start in range(0, len(digits), 16)]


def _templates(trays: Trays, numbers: np.ndarray, division: Division) -> list[JsonObject]:
    """Rows of one template, which the split could not keep together."""
    rows = sum(size for _, size in division.templates)
    if not rows:
        return []
    text = f"{rows:,} rows are so alike that they seem to come from templates; only equal prompts of them stay together"
    places = [trays.place(int(numbers[row])) for row, _ in division.templates[:5]]
    return [finding("WARN", "templates", rows, text, examples=places)]


def _drawn(trays: Trays, numbers: np.ndarray, division: Division) -> list[JsonObject]:
    """Rows that a source of `train_only` took along."""
    rows = len(division.drawn)
    if not rows:
        return []
    level = "WARN" if rows > MANY_DRAWN * len(division.fate) else "INFO"
    text = f"{rows:,} rows go to train because they belong together with rows of a train_only source"
    places = [trays.place(int(numbers[row])) for row in division.drawn[:5].tolist()]
    advice = "fine where val and test are large enough; else leave train_only out of that source"
    return [finding(level, "drawn_to_train", rows, text, next=advice, examples=places)]


def _source_facts(source: Source, group: str, trays: Trays) -> SourceFacts:
    own = [tray for tray in trays if tray.source is source]
    found = source.recognition
    return SourceFacts(
        name=source.label,
        path=source.path,
        format=found.format,
        confidence=found.confidence,
        encoding=found.encoding,
        rows=sum(tray.rows_in for tray in own),
        available=found.rows,
        notes=dict(sum((tray.notes for tray in own), Counter[str]())),
        goes_to="val"
        if group == "val"
        else "test"
        if group == "test"
        else "train"
        if source.config.train_only
        else "any",
    )
