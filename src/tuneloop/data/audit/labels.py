"""Task labels, in two levels where they are written `a/b`: counts, balance, splits, and whether length tells them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from tuneloop.core.conversation import JsonObject
from tuneloop.data.audit.blocks import Bars, Block, Figures, Note, Table
from tuneloop.data.audit.question import Question
from tuneloop.data.audit.reading import Reading
from tuneloop.data.findings import finding
from tuneloop.pages.numbers import count, number, share

MOST = 500  # labels in card.json
SHOWN = 25  # groups or labels drawn
FREE_TEXT = 0.5  # of the rows: with more different labels than this, the column holds no labels
EVEN = 0.75  # evenness: entropy over that of equal shares; two labels of 79 % and 21 % have it
RARE = 10  # rows to train on
TELLING = 0.3  # of the variance of log length
ENOUGH = 30


class Labels(Question):
    """Rows by label."""

    name = "labels"
    title = "Task labels"
    about = "A label reasoning/arithmetic counts for reasoning too. Lengths are medians in words."
    unchecked = "no row has a label"

    def measure(self, data: Reading) -> JsonObject | None:
        table = data.table.filter(pl.col("label").is_not_null())
        if not table.height:
            return None
        table = table.with_columns(pl.col("label").str.split("/").list.first().alias("group"))
        labels = _counted(table, "label", data.splits)
        groups = _counted(table, "group", data.splits)
        return {
            "labelled": table.height,
            "unlabelled": data.table.height - table.height,
            "distinct": len(labels),
            "evenness": _evenness([row["rows"] for row in labels.values()]),
            "length_tells": {side: _explained(table, f"{side}_words") for side in ("prompt", "answer")},
            "groups": dict(list(groups.items())[:MOST]),
            "labels": dict(list(labels.items())[:MOST]),
            "rare": _few(labels, RARE),
            "not_trained": _few(labels, 1),
        }

    def judge(self, section: JsonObject) -> list[JsonObject]:
        rows, distinct = section["labelled"], section["distinct"]
        if rows < ENOUGH:
            return []
        if distinct > FREE_TEXT * rows:
            text = f"{count(distinct)} different labels in {count(rows)} rows: this is text, not labels"
            advice = "name another column as label, or none, in the source's columns"
            return [finding("WARN", "labels_are_text", distinct, text, next=advice)]
        return [*_about_balance(section), *_about_splits(section), *_about_length(section)]

    def show(self, section: JsonObject) -> Sequence[Block]:
        labels, groups = section["labels"], section["groups"]
        two_levels = len(groups) < len(labels)
        splits = list(next(iter(labels.values()))["splits"])
        figures = [
            ("labels", count(section["distinct"])),
            *([("first level", count(len(groups)))] if two_levels else []),
            ("rows with a label", share(section["labelled"], section["labelled"] + section["unlabelled"])),
            ("evenness", number(section["evenness"])),
        ]
        blocks: list[Block] = [Figures(figures)]
        if two_levels:
            blocks.append(_bars("Rows by first level", groups, splits, section["labelled"]))
        blocks.append(_bars("Rows by label", labels, splits, section["labelled"]))
        head = ["label", "rows", "share", *splits, "prompt p50", "answer p50"]
        lines = []
        for name, group in groups.items():
            within = {key: row for key, row in labels.items() if key.split("/")[0] == name}
            if two_levels and list(within) != [name]:
                lines.append(_line(name, group, splits, section["labelled"]))
                lines += [
                    _line(f"  / {key.partition('/')[2] or '(none)'}", row, splits, section["labelled"])
                    for key, row in within.items()
                ]
            else:
                lines += [_line(key, row, splits, section["labelled"]) for key, row in within.items()]
        blocks.append(Table(head, lines, title="All labels", folded=len(lines) > SHOWN))
        if section["distinct"] > len(labels):
            blocks.append(Note(f"The {count(section['distinct'] - len(labels))} rarest labels are left out."))
        return blocks


def _counted(table: pl.DataFrame, column: str, splits: Sequence[str]) -> dict[str, Any]:
    """Each label's rows in all and per split, and its lengths; the largest first."""
    found = table.group_by(column).agg(
        pl.len().alias("rows"),
        *((pl.col("split") == split).sum().cast(pl.Int64).alias(f"split {split}") for split in splits),
        *(pl.col(f"{side}_words").quantile(0.5, "nearest").cast(pl.Int64).alias(side) for side in ("prompt", "answer")),
    )
    return {
        row[column]: {
            "rows": row["rows"],
            "splits": {split: row[f"split {split}"] for split in splits},
            "words": {side: row[side] for side in ("prompt", "answer")},
        }
        for row in found.sort("rows", column, descending=[True, False]).iter_rows(named=True)
    }


def _evenness(rows: Sequence[int]) -> float:
    """Pielou's evenness: 1 for equally large labels, near 0 where one has nearly all rows; 1 for a single label."""
    total = sum(rows)
    entropy = -sum(size / total * math.log(size / total) for size in rows)
    return round(entropy / math.log(len(rows)), 3) if len(rows) > 1 else 1.0


def _explained(table: pl.DataFrame, column: str) -> float:
    """The share of the variance of log length that lies between labels (η²): 1 where the length tells the label."""
    logs = table.select("label", (pl.col(column) + 1).log().alias("log"))
    by = logs.with_columns(pl.col("log").mean().over("label").alias("mean"))
    whole, between = (by[name].to_numpy().var() for name in ("log", "mean"))
    return round(float(between / whole), 3) if whole > 1e-9 else 0.0


def _few(labels: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """The labels with fewer than so many rows in train: how many, and some of their names."""
    found = [name for name, row in labels.items() if row["splits"]["train"] < rows]
    return {"labels": len(found), "names": found[:10]}


def _about_balance(section: JsonObject) -> list[JsonObject]:
    labels = section["labels"]
    found: list[JsonObject] = []
    if section["evenness"] < EVEN:
        first, last = next(iter(labels)), list(labels)[-1]
        most, least = (share(labels[name]["rows"], section["labelled"]) for name in (first, last))
        text = f"labels are uneven (evenness {section['evenness']}): {most} of the rows are {first}, {least} are {last}"
        advice = (
            "level them with the step balance, or gather more of the rare ones; judge by f1 or per label, not accuracy"
        )
        found.append(finding("WARN", "label_imbalance", labels[first]["rows"], text, next=advice))
    if section["unlabelled"]:
        text = f"{count(section['unlabelled'])} rows have no label"
        found.append(finding("INFO", "unlabelled", section["unlabelled"], text))
    return found


def _about_splits(section: JsonObject) -> list[JsonObject]:
    found: list[JsonObject] = []
    absent, rare = section["not_trained"], section["rare"]
    if absent["labels"]:
        text = f"{absent['labels']} labels stand in val or test and not in train: {', '.join(absent['names'])}"
        advice = "gather rows for them, or take them out of val and test"
        found.append(finding("WARN", "label_not_trained", absent["labels"], text, next=advice))
    if rare["labels"] > absent["labels"]:
        text = f"{rare['labels']} labels have fewer than {RARE} rows to train on: {', '.join(rare['names'])}"
        advice = "gather more of them, or merge labels"
        found.append(finding("WARN", "rare_labels", rare["labels"], text, next=advice))
    return found


def _about_length(section: JsonObject) -> list[JsonObject]:
    telling = section["length_tells"]["prompt"]
    if telling <= TELLING or section["distinct"] < 2:
        return []
    text = f"the length of a prompt tells its label: {share(telling)} of the variance of length lies between labels"
    advice = "look at the medians per label; give labels prompts of like lengths (step balance)"
    return [finding("WARN", "length_tells_label", section["labelled"], text, next=advice)]


def _bars(title: str, rows: Mapping[str, Any], splits: Sequence[str], total: int) -> Bars:
    drawn = [
        (name, [row["splits"][s] for s in splits], share(row["rows"], total))
        for name, row in list(rows.items())[:SHOWN]
    ]
    rest = list(rows.values())[SHOWN:]
    if rest:  # a sum has no bar of its own: it would be the longest
        drawn.append((f"{len(rest)} more", [0] * len(splits), share(sum(row["rows"] for row in rest), total)))
    return Bars(title, splits, drawn, head="label")


def _line(name: str, row: Mapping[str, Any], splits: Sequence[str], total: int) -> list[str]:
    sizes = (count(row["splits"][split]) for split in splits)
    return [
        name,
        count(row["rows"]),
        share(row["rows"], total),
        *sizes,
        *(count(row["words"][s]) for s in ("prompt", "answer")),
    ]
