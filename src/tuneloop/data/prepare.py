"""The stage `prepare`: raw files → train.jsonl, val.jsonl, test.jsonl, dropped.jsonl, card.json and card.md.

Every row of every source is in exactly one of these files. Knows nothing of models and tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tuneloop.core import jsonl
from tuneloop.core.conversation import Drop, Example, JsonObject
from tuneloop.core.errors import DataError
from tuneloop.core.runs import Run
from tuneloop.data.card import Facts, card, markdown
from tuneloop.data.config import DataConfig, SourceConfig
from tuneloop.data.read import existing
from tuneloop.data.source import Loaded, Recognition, load
from tuneloop.data.split import Splits, split
from tuneloop.data.steps import STEPS, Step
from tuneloop.track import console


@dataclass(frozen=True)
class Collected:
    """All rows in memory, before anything is written: what `tuneloop check` shows."""

    splits: Splits
    card: JsonObject
    recognitions: tuple[Recognition, ...]


@dataclass(frozen=True)
class Prepared:
    """The finished stage: the files of the splits (an empty split is an empty file) and the card."""

    train: Path
    val: Path
    test: Path
    card: JsonObject
    recognitions: tuple[Recognition, ...]


def prepare(config: DataConfig, *, seed: int, run: Run) -> Prepared:
    """Runs the stage inside `run.out`. Raises DataError for unusable files, and when nothing is left to train on."""
    collected = collect(config, seed)
    say(collected)
    out, splits = run.out, collected.splits
    paths = {name: out / f"{name}.jsonl" for name in ("train", "val", "test")}
    for name, path in paths.items():
        jsonl.write_lines(path, (example.to_json() for example in getattr(splits, name)))
    jsonl.write_lines(out / "dropped.jsonl", (drop.to_json() for drop in splits.drops))
    jsonl.write(out / "card.json", collected.card)
    jsonl.write_text(out / "card.md", markdown(collected.card))
    if not splits.train:  # after writing, so that the user can look at the dropped rows
        raise nothing_left(splits.drops, out / "dropped.jsonl")
    return Prepared(**paths, card=collected.card, recognitions=collected.recognitions)


def collect(config: DataConfig, seed: int) -> Collected:
    """Reads, checks and divides all rows without writing. Raises DataError for unusable files."""
    loaded = {name: _load_all(sources, seed) for name, sources in _groups(config).items()}
    sources = [source for group in loaded.values() for source in group]
    read = {name: [example for source in group for example in source.examples] for name, group in loaded.items()}
    drops = [drop for source in sources for drop in source.drops]
    kept = read["sources"]
    for step in config.steps:
        kept, rejected = _apply(step, kept)
        drops += rejected
    splits = split(kept, config.split, read.get("val"), read.get("test"))
    splits.drops = drops + splits.drops
    parts = {"train": splits.train, "val": splits.val, "test": splits.test}
    shares = {**config.split.model_dump(), **{name: 1.0 for name in ("val", "test") if name in loaded}}
    facts = Facts(sources, parts, splits.drops, _repaired(read["sources"], kept), shares)
    return Collected(splits, card(facts), tuple(source.recognition for source in sources))


def source_files(config: DataConfig) -> list[Path]:
    """All files that the stage reads. Raises DataError when one is missing."""
    return [existing(source.path) for group in _groups(config).values() for source in group]


def load_examples(path: Path) -> list[Example]:
    """The Examples of a file that this stage wrote. Raises DataError with file:line for what is none."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; `tuneloop prepare RECIPE.yaml` writes it")
    examples: list[Example] = []
    for number, value in enumerate(jsonl.read_lines(path), 1):
        try:
            examples.append(Example.from_json(value))
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path}:{number}: not an Example as `tuneloop prepare` writes it ({error!r}); "
                "name raw files as sources under data: instead"
            ) from error
    return examples


def say(collected: Collected) -> None:
    """What was recognised and decided, on the console. As Text: data may hold what rich takes for markup."""
    from rich.text import Text

    for recognition in collected.recognitions:
        console.say(Text(str(recognition)))
    rows, splits = collected.card["rows"], collected.card["splits"]
    dropped = ", ".join(f"{count:,} {step}" for step, count in rows["dropped"].items())
    divided = ", ".join(f"{name} {count:,}" for name, count in splits.items())
    lost = f"{rows['in'] - rows['kept']:,} dropped{f' ({dropped})' if dropped else ''}"
    console.say(Text(f"{rows['in']:,} rows in = {rows['kept']:,} kept ({divided}) + {lost}"))
    for found in collected.card["findings"]:
        if found["level"] != "INFO" or found["code"] in ("decided", "not_all_used"):
            console.say(Text(f"{found['level']} {found['code']}: {found['message']}"))


def nothing_left(drops: Sequence[Drop], listed: Path | None = None) -> DataError:
    """The error for an empty training set, with the reasons counted."""
    reasons = Counter(f"{drop.step}: {drop.reason}" for drop in drops).most_common(5)
    counted = "".join(f"\n  {count:,} × {reason}" for reason, count in reasons)
    where = f" All of them stand in {listed}." if listed and drops else ""
    why = f"{len(drops):,} rows were dropped:{counted}\n" if drops else "all rows went to val or test. "
    return DataError(f"no row is left to train on; {why}Correct the source's format or the steps.{where}")


def _groups(config: DataConfig) -> dict[str, Sequence[SourceConfig]]:
    own = {"val": config.val, "test": config.test}
    return {"sources": config.sources, **{name: files for name, files in own.items() if files is not None}}


def _load_all(sources: Sequence[SourceConfig], seed: int) -> list[Loaded]:
    loaded: list[Loaded] = []
    for source in sources:
        with console.progress(f"reading {Path(source.path).name}", None) as bar:
            loaded.append(load(source, seed, bar.advance))
    return loaded


def _apply(step: Step, examples: list[Example]) -> tuple[list[Example], list[Drop]]:
    name = STEPS.name_of(step)
    sieved = step.apply(examples)
    lost = len(examples) - len(sieved.kept) - len(sieved.rejected)
    assert lost == 0, f"step {name}: {len(examples)} Examples in, {lost} unaccounted for"
    drops = [Drop(one.example, name, one.reason, one.example.origin, one.evidence) for one in sieved.rejected]
    return sieved.kept, drops


def _repaired(before: Sequence[Example], kept: Sequence[Example]) -> int:
    """Kept rows whose content is no longer what was read."""
    ids = {example.id for example in before}
    return sum(example.id not in ids for example in kept)
