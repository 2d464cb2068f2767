"""Examples → rendered rows; what cannot be trained on is listed with its reason, never left out in silence."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tuneloop.core import digest
from tuneloop.core.conversation import Drop, Example, Origin
from tuneloop.core.errors import DataError
from tuneloop.core.example_file import ExampleFile
from tuneloop.core.machine import rare_collector
from tuneloop.forward.mixing import Mix
from tuneloop.render import store
from tuneloop.render.flat import FlatRows, flat, lengths_of, supervised_of
from tuneloop.render.many import render_batches
from tuneloop.render.rendered import Rendered
from tuneloop.render.template import Renderer
from tuneloop.track import console
from tuneloop.tune import canaries, pairs
from tuneloop.tune.config import TuneConfig

KEPT = 2_000  # rows; fewer are rendered in a second
EMPTY = FlatRows.of([])


@dataclass(frozen=True)
class Rows:
    """Rendered rows and the Examples that gave none."""

    rendered: Sequence[Rendered]
    drops: list[Drop]
    rejected: Sequence[Rendered] = EMPTY
    """The same rows with their rejected answers, where the recipe learns from both."""
    paired: int = 0
    """Examples that have a rejected answer, learnt from or not."""
    made: str = ""
    """How they came to be: rendered now, or taken from the cache."""

    @property
    def tokens(self) -> int:
        return sum(lengths_of(self.rendered))

    @property
    def supervised(self) -> int:
        return sum(supervised_of(self.rendered))


def render_rows(renderer: Renderer, examples: Sequence[Example], config: TuneConfig, title: str) -> Rows:
    """Renders every example, with `objective.orpo` its rejected answer too; rows of a file are kept for the next run.

    Raises DataError, with the reasons counted, when none is left to train on.
    """
    if not examples:
        return Rows(EMPTY, [])
    if isinstance(examples, ExampleFile) and len(examples) >= KEPT:
        rows = _kept(renderer, examples, config, title)
    else:
        rows = _rendered(renderer, examples, config, title)
    if not rows.rendered:
        raise DataError(f"none of {len(examples)} rows can be trained on:\n{_counted(rows.drops)}")
    return rows


def with_canaries(
    renderer: Renderer, rows: Rows, config: TuneConfig, seed: int, mix: Mix | None
) -> tuple[Rows, list[canaries.Canary]]:
    """The training rows and after them the canaries that the recipe plants, which it says; and these.

    Raises DataError where rows are drawn by source.
    """
    options = config.validation.canaries
    if options is None:
        return rows, []
    if mix:
        raise DataError("validation.canaries have no source, and data.mix draws rows by theirs: take one out")
    made, repeat = canaries.make(options, seed), options.repeat
    more = render_rows(renderer, [one.planted for one in made for _ in range(repeat)], config, "render canaries")
    console.decided("canaries", f"{len(made)} made-up secrets, each {repeat} × an epoch beside the rows")
    both = FlatRows.of([rows.rendered, more.rendered])
    return replace(rows, rendered=both, drops=[*rows.drops, *more.drops]), made


@rare_collector()
def _rendered(renderer: Renderer, examples: Sequence[Example], config: TuneConfig, title: str) -> Rows:
    """Rendered now; Examples of a file are in memory a few at a time."""
    started = time.perf_counter()
    drops: list[Drop] = []
    paired = 0

    def each() -> Iterator[Example]:
        nonlocal paired
        for example in examples:
            paired += bool(example.rejected)
            yield example

    with console.progress(title, len(examples)) as bar:
        options: Any = {"max_length": config.max_length, "overlong": config.overlong, "progress": bar}
        if config.objective.orpo:
            chosen, rejected, drops = pairs.render_pairs(renderer, list(each()), **options)
            sets = flat(chosen), flat(rejected)
        else:

            def batches() -> Iterator[list[Rendered]]:
                for found, lost in render_batches(renderer, each(), **options):
                    drops.extend(lost)
                    yield found

            sets = FlatRows.of(batches()), EMPTY
    made = f"rendered in {time.perf_counter() - started:.1f} s"
    return Rows(sets[0], drops, sets[1], paired, made)


def _kept(renderer: Renderer, examples: ExampleFile, config: TuneConfig, title: str) -> Rows:
    """From the cache where the same file was rendered in the same way, else rendered and kept."""
    folder = store.folder_of({
        "file": examples.digest, "renderer": renderer.digest(), "max_length": config.max_length,
        "overlong": config.overlong, "orpo": bool(config.objective.orpo), "pairs": digest.of_file(Path(pairs.__file__)),
    })  # fmt: skip
    why = ""
    try:
        found = store.read(folder)
    except DataError as error:
        found, why = None, f" ({error})"
    if found:
        about, rendered, rejected = found.about, found.sets["rendered"], found.sets["rejected"]
        renderer.decisions += [line for line in about["decisions"] if line not in renderer.decisions]
        drops = [_drop(value) for value in about["drops"]]
        return Rows(rendered, drops, rejected, about["paired"], "taken from the cache")
    rows = _rendered(renderer, examples, config, title)
    about = {
        "decisions": renderer.decisions, "drops": [drop.to_json() for drop in rows.drops], "paired": rows.paired,
    }  # fmt: skip
    try:
        store.write(folder, store.Kept({"rendered": flat(rows.rendered), "rejected": flat(rows.rejected)}, about))
    except OSError as error:
        why += f"; not kept for the next run: {error.strerror}"
    return replace(rows, made=rows.made + why)


def _drop(value: dict[str, Any]) -> Drop:
    origin = Origin(value["origin"]["source"], value["origin"]["row"], tuple(value["origin"].get("parents", ())))
    return Drop(Example.from_json(value["example"]), value["step"], value["reason"], origin, value["evidence"])


def sources_of(rows: Rows, examples: Sequence[Example]) -> list[str]:
    """The source of each rendered row; `examples` are those that `render_rows` was given.

    By count and order, not by id alone: equal Examples of two sources have the same id.
    """
    sequences = Counter(flat(rows.rendered).examples)
    equal = Counter(example.id for example in examples)
    return [example.origin.source for example in examples for _ in range(sequences[example.id] // equal[example.id])]


def losses_in_words(rows: Rows, examples: int) -> str:
    """What rendering cost, in a line or a few."""
    cut, shortened = (flat(rows.rendered).arrays[name] for name in ("cut_tokens", "left_out_messages"))
    words = [f"{examples - len(rows.drops):,} of {examples:,} rows are trained on, {rows.made}"]
    if rows.drops:
        words.append(f"{len(rows.drops)} are not (listed in out/dropped.jsonl):\n{_counted(rows.drops)}")
    if shortened.any():
        words.append(f"{(shortened > 0).sum()} lost turns from the middle to fit")
    if cut.any():
        words.append(f"{(cut > 0).sum()} were truncated by {cut.sum()} tokens in all, as allowed")
    return "; ".join(words)


def _counted(drops: Iterable[Drop]) -> str:
    counts = Counter(drop.reason for drop in drops)
    return "\n".join(f"  {count:>6} × {reason}" for reason, count in counts.most_common(8))
