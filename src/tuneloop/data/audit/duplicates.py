"""The proof that no question of val or test was trained on: nothing that is the same stands in two splits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from tuneloop.core.conversation import JsonObject
from tuneloop.data.audit.blocks import Block, Proof, Table
from tuneloop.data.audit.near import SIMILAR
from tuneloop.data.audit.question import Question
from tuneloop.data.audit.quote import quoted
from tuneloop.data.audit.reading import Reading
from tuneloop.data.findings import finding
from tuneloop.pages.numbers import count, number, share
from tuneloop.stats.intervals import wilson
from tuneloop.texts.words import prompt_key

NEAR_ERROR = 0.05  # of a split's rows with a near-duplicate in train; below, a warning
EXAMPLES = 5
CUT = 200  # characters of a prompt shown


class Duplicates(Question):
    """Prompts and clusters of near-duplicates in more than one split."""

    name = "duplicates"
    title = "Leak proof"
    about = (
        "A question that was trained on measures memory. Checked on what was written, by other code than the split's: "
        "equal prompts, groups of rows that belong together (near-duplicates, rows made from one another), and an own "
        f"search for similar prompts (Jaccard similarity of shingles from {SIMILAR}), in which a template that many "
        "prompts share does not count."
    )
    unchecked = "fewer than two splits have rows"

    def measure(self, data: Reading) -> JsonObject | None:
        if data.table["split"].n_unique() < 2:
            return None
        return {
            "prompts": _prompts(data),
            "clusters": _clusters(data.table),
            "near": _near(data),
        }

    def judge(self, section: JsonObject) -> list[JsonObject]:
        return [*_about_equal(section), *_about_near(section["near"])]

    def show(self, section: JsonObject) -> Sequence[Block]:
        prompts, clusters, near = section["prompts"], section["clusters"], section["near"]
        where = "all rows" if prompts["whole"] else f"a sample of {count(prompts['rows'])} rows"
        places = "in more than one split"
        checked = f"{count(prompts['checked'])} different prompts of {where}"
        claim = _said(prompts["straddling"], "prompt stands", "prompts stand", places)
        lines = [(prompts["straddling"] == 0, claim, checked)]
        checked = f"{count(clusters['checked'])} groups with {count(clusters['rows'])} rows, of all rows"
        what = "group of rows that belong together stands", "groups of rows that belong together stand"
        lines.append((clusters["straddling"] == 0, _said(clusters["straddling"], *what, places), checked))
        for split, part in near["splits"].items():
            checked = f"{count(part['rows'])} of {split} against {count(near['train'])} of train"
            what = f"{split} prompt has", f"{split} prompts have"
            lines.append((part["leaked"] == 0, _said(part["leaked"], *what, "a near-duplicate in train"), checked))
        rows = [[one["split"], one["text"], one["train"], number(one["similarity"])] for one in near["examples"]]
        table = Table(["split", "its prompt", "a prompt of train", "similarity"], rows, title="The most alike", text=3)
        return [Proof(lines), *([table] if rows else [])]


def _about_equal(section: JsonObject) -> list[JsonObject]:
    found: list[JsonObject] = []
    kinds = (("prompts", "leak_prompt", "prompts"), ("clusters", "leak_cluster", "groups of rows that belong together"))
    for key, code, what in kinds:
        checked = section[key]
        if checked["straddling"]:
            size = (
                f"{count(checked['straddling'])} {what} stand in more than one split ({count(checked['leaked'])} rows)"
            )
            advice = "take such rows out of train, or out of your own val and test files"
            examples = checked["examples"]
            found.append(finding("ERROR", code, checked["straddling"], size, next=advice, examples=examples))
    return found


def _about_near(near: JsonObject) -> list[JsonObject]:
    found: list[JsonObject] = []
    for split, part in near["splits"].items():
        if part["leaked"]:
            low, high = wilson(part["leaked"], part["rows"])
            text = (
                f"{share(part['leaked'], part['rows'])} (95 %: {share(low)} to {share(high)}) of {count(part['rows'])} "
                f"{split} prompts have a near-duplicate in train"
            )
            level = "ERROR" if part["leaked"] > NEAR_ERROR * part["rows"] else "WARN"
            advice = (
                "add the step near_duplicates (the split alone holds short prompts together only where they are equal) "
                "and keep split.together at near; take such rows out of val or test where these are own files"
            )
            examples = [place for one in near["examples"] if one["split"] == split for place in one["places"]]
            code = f"near_leak_{split}"
            found.append(finding(level, code, part["leaked"], text, next=advice, examples=examples))
    return found


def _said(times: int, one: str, several: str, rest: str) -> str:
    return f"no {one} {rest}" if times == 0 else f"{count(times)} {one if times == 1 else several} {rest}"


def _prompts(data: Reading) -> dict[str, Any]:
    """Prompts, equal after normalisation, that stand in more than one split."""
    if "prompt" in data.table.columns:
        table, whole = data.table.select("split", "source", "row", "id", "prompt"), True
    else:
        keys = [int.from_bytes(prompt_key(row.example)[:8]) for row in data.rows]
        places = pl.DataFrame([row.place for row in data.rows], schema=["split", "source", "row", "id"])
        table, whole = places.with_columns(pl.Series("prompt", keys, dtype=pl.UInt64)), data.whole
    return {"checked": table["prompt"].n_unique(), "whole": whole, **_straddling(table, "prompt"), "rows": table.height}


def _clusters(table: pl.DataFrame) -> dict[str, Any]:
    """Clusters of the steps that stand in more than one split."""
    clustered = table.filter(pl.col("cluster").is_not_null() & pl.col("cluster").is_duplicated())
    return {"checked": clustered["cluster"].n_unique(), **_straddling(clustered, "cluster"), "rows": clustered.height}


def _straddling(table: pl.DataFrame, key: str) -> dict[str, Any]:
    found = table.group_by(key).agg(pl.col("split").n_unique().alias("splits"), pl.len().alias("rows"))
    found = found.filter(pl.col("splits") > 1)
    places = table.filter(pl.col(key).is_in(found[key].sort().head(EXAMPLES).implode())).sort(
        key, "split", "source", "row"
    )
    places = places.unique([key, "split"], keep="first", maintain_order=True)
    return {
        "straddling": found.height,
        "leaked": int(found["rows"].sum()),
        "examples": places.select("split", "source", "row", "id").to_dicts(),
    }


def _near(data: Reading) -> dict[str, Any]:
    """Rows of val and test whose prompt is similar to one of train, other than the equal ones."""
    rows, near = data.rows, data.near
    keys = [prompt_key(row.example) for row in rows]
    trained = {key for key, row in zip(keys, rows, strict=True) if row.split == "train"}
    first: dict[int, int] = {}  # number of equal texts: a row of train
    for index, row in enumerate(rows):
        if row.split == "train":
            first.setdefault(int(near.same[index]), index)
    neighbours = near.neighbours()
    splits = {split: {"rows": 0, "leaked": 0} for split in data.splits if split != "train"}
    alike: list[tuple[float, int, int]] = []  # similarity, the row, a row of train
    for index, row in enumerate(rows):
        if row.split == "train":
            continue
        splits[row.split]["rows"] += 1
        group = int(near.same[index])
        found = [(value, first[other]) for other, value in neighbours.get(group, []) if other in first]
        found += [(1.0, first[group])] if group in first else []
        if found and keys[index] not in trained:
            splits[row.split]["leaked"] += 1
            value, other = max(found)
            alike.append((value, index, other))
    alike.sort(key=lambda one: -one[0])
    examples = [
        {
            "split": rows[index].split,
            "similarity": round(value, 3),
            "text": quoted(rows[index].said or rows[index].answer, CUT),
            "train": quoted(rows[other].said or rows[other].answer, CUT),
            "places": [rows[index].place, rows[other].place],
        }
        for value, index, other in alike[:EXAMPLES]
    ]
    checked = {name: part for name, part in splits.items() if part["rows"]}
    trained_rows = sum(row.split == "train" for row in rows)
    return {"train": trained_rows, "similar": SIMILAR, "splits": checked, "examples": examples}
