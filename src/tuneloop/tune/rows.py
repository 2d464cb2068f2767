"""Examples → rendered rows; what cannot be trained on is listed with its reason, never left out in silence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tuneloop.core.conversation import Drop, Example
from tuneloop.core.errors import DataError
from tuneloop.render.rendered import Rendered
from tuneloop.render.template import Renderer
from tuneloop.track import console
from tuneloop.tune.config import TuneConfig
from tuneloop.tune.pairs import render_pairs


@dataclass(frozen=True)
class Rows:
    """Rendered rows and the Examples that gave none."""

    rendered: list[Rendered]
    drops: list[Drop]
    rejected: list[Rendered] = field(default_factory=list[Rendered])
    """The same rows with their rejected answers, where the recipe learns from both."""

    @property
    def tokens(self) -> int:
        return sum(len(row) for row in self.rendered)

    @property
    def supervised(self) -> int:
        return sum(row.supervised for row in self.rendered)


def render_rows(renderer: Renderer, examples: Sequence[Example], config: TuneConfig, title: str) -> Rows:
    """Renders every example, with `objective.orpo` its rejected answer too.

    Raises DataError, with the reasons counted, when none is left to train on.
    """
    if not examples:
        return Rows([], [])
    with console.progress(title, len(examples)) as bar:
        rejected: list[Rendered] = []
        options: Any = {"max_length": config.max_length, "overlong": config.overlong, "progress": bar}
        if config.objective.orpo:
            rendered, rejected, drops = render_pairs(renderer, examples, **options)
        else:
            rendered, drops = renderer.render_all(examples, **options)
    if not rendered:
        raise DataError(f"none of {len(examples)} rows can be trained on:\n{_counted(drops)}")
    return Rows(rendered, drops, rejected)


def sources_of(rows: Rows, examples: Sequence[Example]) -> list[str]:
    """The source of each rendered row; `examples` are those that `render_rows` was given.

    By count and order, not by id alone: equal Examples of two sources have the same id.
    """
    sequences = Counter(row.example for row in rows.rendered)
    equal = Counter(example.id for example in examples)
    return [example.origin.source for example in examples for _ in range(sequences[example.id] // equal[example.id])]


def losses_in_words(rows: Rows, examples: int) -> str:
    """What rendering cost, in a line or a few."""
    cut = [row for row in rows.rendered if row.cut_tokens]
    shortened = [row for row in rows.rendered if row.left_out_messages]
    words = [f"{examples - len(rows.drops)} of {examples} rows are trained on"]
    if rows.drops:
        words.append(f"{len(rows.drops)} are not (listed in out/dropped.jsonl):\n{_counted(rows.drops)}")
    if shortened:
        words.append(f"{len(shortened)} lost turns from the middle to fit")
    if cut:
        words.append(f"{len(cut)} were truncated by {sum(row.cut_tokens for row in cut)} tokens in all, as allowed")
    return "; ".join(words)


def _counted(drops: Iterable[Drop]) -> str:
    counts = Counter(drop.reason for drop in drops)
    return "\n".join(f"  {count:>6} × {reason}" for reason, count in counts.most_common(8))
