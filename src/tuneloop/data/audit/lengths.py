"""How long prompts and answers are, by language, and whether short, medium and long ones are balanced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from tuneloop.core.conversation import JsonObject
from tuneloop.data.audit.blocks import Bars, Block, Columns, Table
from tuneloop.data.audit.question import Question
from tuneloop.data.audit.reading import Reading
from tuneloop.data.findings import finding
from tuneloop.data.split import LENGTHS
from tuneloop.pages.numbers import count, share

BUCKETS = ("short", "medium", "long")
DOMINANT = 0.9
ENOUGH = 50
SIDES = ("prompt", "answer")
EDGES = np.array([0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048,
                  3072, 4096, 6144, 8192, 12288, 16384])  # fmt: skip
LANGUAGES = 4  # with columns of their own in the histogram
DRAWN = 0.05  # of the rows, from which on a language has them
LISTED = 8  # languages in the table


class Lengths(Question):
    """Words of prompts and answers."""

    name = "lengths"
    title = "Lengths"
    about = (
        "In words; a Chinese character is one. What is rare in training is answered badly: a model that saw only short "
        f"prompts does not know long ones. Short is up to {LENGTHS[0]} words, medium up to {LENGTHS[1]}."
    )

    def measure(self, data: Reading) -> JsonObject | None:
        if not data.table.height:
            return None
        table = data.table.select(pl.col("language").fill_null("unknown"), "prompt_words", "answer_words")
        out: JsonObject = {}
        for side in SIDES:
            column = f"{side}_words"
            by = table.group_by("language").agg(*spread(column), pl.len().alias("rows"), *_buckets(column))
            whole = table.select(*spread(column), pl.len().alias("rows"), *_buckets(column))
            by = by.sort("rows", "language", descending=[True, False])
            drawn = by.filter((pl.col("rows") >= DRAWN * table.height) | (pl.col("rows") == pl.col("rows").max()))
            out[side] = {
                "all": whole.row(0, named=True),
                "languages": {row.pop("language"): row for row in by.iter_rows(named=True)},
                "histogram": _histogram(table, column, drawn["language"].head(LANGUAGES).to_list()),
            }
        return out

    def judge(self, section: JsonObject) -> list[JsonObject]:
        rows = section["prompt"]["all"]["rows"]
        text = "; ".join(
            f"{side} {count(section[side]['all']['p50'])} (p95 {count(section[side]['all']['p95'])}, "
            f"longest {count(section[side]['all']['max'])})"
            for side in SIDES
        )
        found = [finding("INFO", "lengths", rows, f"words, median: {text}")]
        prompts = section["prompt"]["all"]
        largest = max(BUCKETS, key=lambda name: prompts[name])
        if rows >= ENOUGH and prompts["max"] and prompts[largest] > DOMINANT * rows:
            text = (
                f"{share(prompts[largest], rows)} of the prompts are {largest}; the model will not know other lengths"
            )
            advice = (
                "add prompts of other lengths, or level them with the step balance; fine where all use is like this"
            )
            found.append(finding("WARN", "length_imbalance", prompts[largest], text, next=advice))
        return found

    def show(self, section: JsonObject) -> Sequence[Block]:
        blocks: list[Block] = []
        for side in SIDES:
            drawn = section[side]["histogram"]
            series = [(name, values) for name, values in drawn["rows"].items()]
            blocks.append(Columns(f"Words of the {side}", [_edge(edge) for edge in drawn["from"]], series, "words"))
        for side in SIDES:
            rows = list(section[side]["languages"].items())[:LISTED]
            bars = [(name, [row[key] for key in BUCKETS], count(row["rows"])) for name, row in rows]
            blocks.append(Bars(f"Short, medium and long {side}s", BUCKETS, bars, head="language"))
        several = len(section["prompt"]["languages"]) > 1
        lines = [
            [name, side, count(row["rows"]), *(count(row[key]) for key in ("p5", "p50", "p95", "max")),
             *(share(row[key], row["rows"]) for key in BUCKETS)]
            for side in SIDES
            for name, row in [
                *([("all", section[side]["all"])] if several else []),
                *list(section[side]["languages"].items())[:LISTED],
            ]
        ]  # fmt: skip
        head = ["language", "of", "rows", "p5", "median", "p95", "longest", *BUCKETS]
        return [*blocks, Table(head, lines, text=2)]


def spread(column: str) -> list[pl.Expr]:
    """5th, 50th and 95th percentile and the largest, each a value that occurs."""
    words = pl.col(column)
    quantiles = [words.quantile(q / 100, "nearest").cast(pl.Int64).alias(f"p{q}") for q in (5, 50, 95)]
    return [*quantiles, words.max().cast(pl.Int64).alias("max")]


def _buckets(column: str) -> list[pl.Expr]:
    words = pl.col(column)
    return [
        (words <= LENGTHS[0]).sum().cast(pl.Int64).alias("short"),
        ((words > LENGTHS[0]) & (words <= LENGTHS[1])).sum().cast(pl.Int64).alias("medium"),
        (words > LENGTHS[1]).sum().cast(pl.Int64).alias("long"),
    ]


def _histogram(table: pl.DataFrame, column: str, languages: Sequence[str]) -> dict[str, Any]:
    """Rows by length for the largest languages; `from` are the shortest lengths of the columns."""
    rows = {}
    for language in languages:
        words = table.filter(pl.col("language") == language)[column].to_numpy()
        rows[language] = np.bincount(np.searchsorted(EDGES, words, side="right") - 1, minlength=len(EDGES))
    used = np.flatnonzero(sum(rows.values(), np.zeros(len(EDGES), dtype=np.int64)))
    part = slice(int(used[0]), int(used[-1]) + 1)
    return {"from": EDGES[part].tolist(), "rows": {name: values[part].tolist() for name, values in rows.items()}}


def _edge(words: int) -> str:
    return str(words) if words < 1024 else f"{words / 1024:g}k"
