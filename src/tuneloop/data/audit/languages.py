"""Languages of the kept rows, and whether the splits have the same."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from tuneloop.core.conversation import JsonObject
from tuneloop.data.audit.blocks import Bars, Block, Table
from tuneloop.data.audit.question import Question
from tuneloop.data.audit.reading import Reading
from tuneloop.data.findings import finding
from tuneloop.pages.numbers import count, share

FEW = 5  # rows: fewer of a language in val or test are no slice that anyone reads
SHIFT = 0.15  # half the sum of differences of shares (total variation)
ENOUGH = 50


class Languages(Question):
    """Rows by language and split."""

    name = "languages"
    title = "Languages"
    about = "By the step language where it ran, else by writing: latin stands for any language in Latin letters."

    def measure(self, data: Reading) -> JsonObject | None:
        if not data.table.height:
            return None
        counted = data.table.group_by(pl.col("language").fill_null("unknown"), "split").len()
        rows: dict[str, dict[str, int]] = {}
        for language, split, number in counted.sort("len", "language", "split", descending=True).iter_rows():
            rows.setdefault(language, dict.fromkeys(data.splits, 0))[split] = number
        ordered = sorted(rows.items(), key=lambda item: (-sum(item[1].values()), item[0]))
        return {"rows": dict(ordered)}

    def judge(self, section: JsonObject) -> list[JsonObject]:
        rows: dict[str, dict[str, int]] = section["rows"]
        total = sum(sum(splits.values()) for splits in rows.values())
        text = ", ".join(f"{name} {share(sum(splits.values()), total)}" for name, splits in list(rows.items())[:6])
        found = [finding("INFO", "languages", total, f"rows by language: {text}")]
        others = [name for name in next(iter(rows.values())) if name != "train"]
        return [*found, *(one for split in others for one in _about_split(rows, split))]

    def show(self, section: JsonObject) -> Sequence[Block]:
        rows = section["rows"]
        total = sum(sum(splits.values()) for splits in rows.values())
        names = list(next(iter(rows.values())))
        bars = [
            (name, [splits[split] for split in names], share(sum(splits.values()), total))
            for name, splits in list(rows.items())[:12]
        ]
        lines = [
            [name, *(count(splits[split]) for split in names), count(sum(splits.values())),
             share(sum(splits.values()), total)]
            for name, splits in rows.items()
        ]  # fmt: skip
        table = Table(["language", *names, "all", "share"], lines, title="In numbers", beside=True)
        return [Bars("Rows by language and split", names, bars, head="language"), table]


def _about_split(rows: dict[str, dict[str, int]], split: str) -> list[JsonObject]:
    """Whether a split asks in other languages than train does."""
    missing = {name: size[split] for name, size in rows.items() if size[split] >= FEW and not size["train"]}
    if missing:
        names = ", ".join(f"{name} ({count(size)} rows)" for name, size in missing.items())
        text = f"{split} asks in languages that train does not have: {names}"
        advice = "add such rows to the sources, or take them out of the file with the step language"
        return [finding("WARN", "language_not_trained", sum(missing.values()), text, next=advice)]
    shift = _shift(rows, split)
    if shift is None or shift <= SHIFT:
        return []
    moved = round(shift * sum(size[split] for size in rows.values()))
    text = f"languages of {split} and train differ: {share(shift)} of the rows would have to change language"
    advice = "read results by language (evaluate.slices), or choose files with the same languages"
    return [finding("WARN", "language_shift", moved, text, next=advice)]


def _shift(rows: dict[str, dict[str, int]], split: str) -> float | None:
    """Total variation distance between the languages of a split and of train; None where one of them is small."""
    here, there = (sum(splits[name] for splits in rows.values()) for name in (split, "train"))
    if min(here, there) < ENOUGH:
        return None
    return sum(abs(splits[split] / here - splits["train"] / there) for splits in rows.values()) / 2
