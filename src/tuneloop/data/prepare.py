"""The stage `prepare`: raw files → train.jsonl, val.jsonl, test.jsonl, dropped.jsonl and the card (json, md, html).

Every row of every source is in exactly one of these files. Knows nothing of models; who does may pass `measure`.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tuneloop.core import jsonl
from tuneloop.core.conversation import Example, JsonObject
from tuneloop.core.errors import DataError
from tuneloop.core.example_file import ExampleFile
from tuneloop.core.machine import without_collector
from tuneloop.core.runs import Run
from tuneloop.data import llama_factory
from tuneloop.data.audit import audit, to_html, to_markdown
from tuneloop.data.config import DataConfig, SourceConfig
from tuneloop.data.facts import SPLITS, Meaning, Measure
from tuneloop.data.llama_factory_lints import lint
from tuneloop.data.read import existing, input_files
from tuneloop.data.source import Recognition, Source, recognise
from tuneloop.data.workers import Executor
from tuneloop.track import console

if TYPE_CHECKING:
    import numpy as np

    from tuneloop.data.passes import Refined


@dataclass(frozen=True)
class Prepared:
    """The finished stage: the files of the splits (an empty split is an empty file) and the card."""

    train: Path
    val: Path
    test: Path
    dropped: Path
    card: JsonObject
    recognitions: tuple[Recognition, ...]


def prepare(
    config: DataConfig, *, seed: int, run: Run, measure: Measure | None = None, executor: Executor = "auto"
) -> Prepared:
    """Runs the stage inside `run.out`. Raises DataError for unusable files, and when nothing is left to train on."""
    prepared = prepare_in(run.out, config, seed=seed, title=run.record["name"], measure=measure, executor=executor)
    say(prepared)
    if not prepared.card["splits"]["train"]:  # after writing, so that the user can look at the dropped rows
        raise nothing_left(prepared)
    return prepared


@without_collector()
def prepare_in(
    folder: Path,
    config: DataConfig,
    *,
    seed: int,
    title: str = "data",
    measure: Measure | None = None,
    executor: Executor = "auto",
) -> Prepared:
    """Reads, checks and divides all rows, and writes the files of the stage into a folder.

    `measure` counts the tokens of some Examples. Raises DataError for unusable files.
    """
    from tuneloop.data import assembly, mix

    meaning = _meaning(config)  # before the work of hours: the folder may be none
    shards = folder / ".shards"
    shards.mkdir(parents=True)
    try:
        groups = {name: [recognise(one, seed) for one in found] for name, found in _groups(config).items()}
        refined = _refine(config, groups, shards, executor)
        facts = assembly.assemble(config, groups, refined, folder, measure)
        facts = replace(facts, findings=[*facts.findings, *_lints(config)], meaning=meaning)
    finally:
        shutil.rmtree(shards, ignore_errors=True)
    mix.write_mix(config.mix, folder, {source.label: source.path for source in groups["sources"]})
    card = audit(facts)
    jsonl.write(folder / "card.json", card)
    jsonl.write_text(folder / "card.md", to_markdown(card))
    jsonl.write_text(folder / "card.html", to_html(card, title))
    files = {name: folder / f"{name}.jsonl" for name in (*SPLITS, "dropped")}
    recognitions = tuple(_redacted(source.recognition, config) for group in groups.values() for source in group)
    return Prepared(**files, card=card, recognitions=recognitions)


def source_files(config: DataConfig) -> list[Path]:
    """All files whose contents decide the result, of steps and encoder too. Raises DataError when one is missing."""
    found = [existing(source.path) for group in _written(config).values() for source in group if _is_list(source)]
    for source in (source for group in _groups(config).values() for source in group):
        found += input_files(source.path, source.limit)
    encoder = [config.audit.encoder] if config.audit.encoder else []
    for name in (*(name for step in config.steps for name in step.files()), *encoder):
        path = existing(name)
        found += sorted(inner for inner in path.rglob("*") if inner.is_file()) if path.is_dir() else [path]
    return found


@without_collector()
def load_examples(path: Path) -> list[Example]:
    """The Examples of a file that this stage wrote. Raises DataError with file:line for what is none."""
    return list(ExampleFile(path))


def say(prepared: Prepared) -> None:
    """What was recognised and decided, on the console. As Text: data may hold what rich takes for markup."""
    from rich.text import Text

    for recognition in prepared.recognitions:
        console.say(Text(str(recognition)))
    rows, splits = prepared.card["rows"], prepared.card["splits"]
    dropped = ", ".join(f"{count:,} {step}" for step, count in rows["dropped"].items())
    divided = ", ".join(f"{name} {count:,}" for name, count in splits.items())
    lost = f"{rows['in'] - rows['kept']:,} dropped{f' ({dropped})' if dropped else ''}"
    console.say(Text(f"{rows['in']:,} rows in = {rows['kept']:,} kept ({divided}) + {lost}"))
    for found in prepared.card["findings"]:
        if is_said(found):
            console.say(Text(f"{found['level']} {found['code']}: {found['message']}"))


def is_said(found: JsonObject) -> bool:
    """Whether `say` tells a finding; the others stand in the card."""
    return found["level"] != "INFO" or found["code"] in ("decided", "not_all_used")


def nothing_left(prepared: Prepared, where: str | None = None) -> DataError:
    """The error for an empty training set, with the reasons counted; `where` the dropped rows can be looked at."""
    reasons = Counter(f"{drop['step']}: {drop['reason']}" for drop in jsonl.read_lines(prepared.dropped))
    counted = "".join(f"\n  {count:,} × {reason}" for reason, count in reasons.most_common(5))
    listed = f" All of them stand in {where or prepared.dropped}."
    if not reasons:
        return DataError(
            "no row is left to train on: all went to val or test, because they are few or belong together; add rows, "
            "or set data.split: {train: 1, val: 0, test: 0}, or give val and test files of their own"
        )
    why = f"{reasons.total():,} rows were dropped:{counted}\n"
    return DataError(f"no row is left to train on; {why}Correct the source's format or the steps.{listed}")


def _meaning(config: DataConfig) -> Meaning | None:
    """The recipe's encoder, which shows how far it is. Raises ModelError for a folder that holds none."""
    if config.audit.encoder is None:
        return None
    from tuneloop.models.encoder import find_encoder

    encoder = find_encoder(Path(config.audit.encoder))

    def encode(texts: Sequence[str]) -> np.ndarray:
        with console.progress("encoding", len(texts)) as bar:
            return encoder.encode(texts, bar.advance)

    return Meaning(encoder.name, encode)


def _redacted(recognition: Recognition, config: DataConfig) -> Recognition:
    """What the console shows of a source also stands in log.txt, so the steps may hide parts of its first row."""
    raw, shown = recognition.raw, recognition.example
    for step in config.steps:
        raw = step.redact(raw)
        shown = shown and Example.from_json(step.redact(shown.to_json()))
    return replace(recognition, raw=raw, example=shown)


def _is_list(source: SourceConfig) -> bool:
    return llama_factory.is_index(source.path)


def _lints(config: DataConfig) -> list[JsonObject]:
    """What the tool that a dataset_info.json is written for would do to its rows in silence."""
    lists = [source.path for group in _written(config).values() for source in group if _is_list(source)]
    return [found for path in lists for found in lint(path)]


def _written(config: DataConfig) -> dict[str, Sequence[SourceConfig]]:
    own = {"val": config.val, "test": config.test}
    return {"sources": config.sources, **{name: files for name, files in own.items() if files is not None}}


def _groups(config: DataConfig) -> dict[str, Sequence[SourceConfig]]:
    """The sources of each group, those that a dataset_info.json names in its place."""
    return {name: llama_factory.expand_all(sources) for name, sources in _written(config).items()}


def _refine(
    config: DataConfig, groups: Mapping[str, list[Source]], folder: Path, executor: Executor
) -> dict[str, Refined]:
    """All groups through their steps: only the sources have some."""
    from tuneloop.data import split
    from tuneloop.data.passes import refine, segments_of

    near = split.near() if config.split.together == "near" else []
    steps = {name: config.steps if name == "sources" else [] for name in groups}
    rows = {name: sum(source.recognition.rows for source in group) for name, group in groups.items()}
    out: dict[str, Refined] = {}
    with console.progress("cleaning", sum(rows[name] * len(segments_of(steps[name])) for name in groups)) as bar:
        for name, group in groups.items():
            out[name] = refine(group, steps[name], folder / name, executor, bar.advance, near)
    return out
