"""How many different things are asked for: clusters of an encoder's vectors, and which splits have rows in them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tuneloop.core.conversation import JsonObject
from tuneloop.data.audit.blocks import Block, Figures, Table
from tuneloop.data.audit.clusters import MOST, ROWS_EACH, clusters, vendi
from tuneloop.data.audit.question import Question
from tuneloop.data.audit.quote import quoted
from tuneloop.data.audit.reading import Reading
from tuneloop.data.findings import finding
from tuneloop.pages.numbers import count, number, share
from tuneloop.stats.intervals import wilson

ROWS = 2_000
LEAST = 2 * ROWS_EACH  # rows: fewer make no two clusters
FEW = 0.01  # of a split's rows, at the lower end of the interval: a row or two stray into any cluster
SHOWN = 12
CUT = 100  # characters of an instruction shown


class Meaning(Question):
    """Clusters of the first user messages."""

    name = "meaning"
    title = "Instructions by meaning"
    about = (
        f"Up to {count(ROWS)} first user messages as vectors of a sentence encoder, in k-means clusters: one for "
        f"{ROWS_EACH} rows, {MOST} at most. Effective clusters: so many equally large ones are as varied. Alike: mean "
        "cosine to the cluster's centre, 1 where all say the same. Vendi score: as varied as so many instructions that "
        "have nothing in common (Friedman & Dieng 2023); compare it for one encoder only."
    )
    unchecked = f"no sentence encoder is named in data.audit, or there are fewer than {LEAST} questions"

    def measure(self, data: Reading) -> JsonObject | None:
        rows = [row for row in data.some(ROWS) if row.asked.strip()]
        if data.facts.meaning is None or len(rows) < LEAST:
            return None
        vectors = data.facts.meaning.encode([row.asked for row in rows])
        found = clusters(vectors)
        split = np.array([row.split for row in rows])
        names = [name for name in data.splits if (split == name).any()]
        trained = np.unique(found.of[split == "train"])
        shares = found.sizes / len(rows)
        return {
            "encoder": data.facts.meaning.name,
            "rows": len(rows),
            "vendi": round(vendi(vectors), 1),
            "effective": round(float(np.exp(-(shares * np.log(shares)).sum())), 1),
            "splits": {
                name: {
                    "rows": int((split == name).sum()),
                    "clusters": len(np.unique(found.of[split == name])),
                    "not_trained": int((~np.isin(found.of[split == name], trained)).sum()),
                }
                for name in names
            },
            "clusters": [
                {
                    "text": quoted(rows[row].asked, CUT),
                    "rows": int(size),
                    "splits": {name: int((split[found.of == cluster] == name).sum()) for name in names},
                    "alike": round(float(alike), 3),
                }
                for cluster, (row, size, alike) in enumerate(zip(found.centre, found.sizes, found.alike, strict=True))
            ],
        }

    def judge(self, section: JsonObject) -> list[JsonObject]:
        found: list[JsonObject] = []
        for split, part in section["splits"].items():
            lost = part["not_trained"]
            if lost:
                low, high = wilson(lost, part["rows"])
                level = "WARN" if low > FEW else "INFO"
                some = f"{share(lost, part['rows'])} (95 %: {share(low)} to {share(high)})"
                text = (
                    f"{some} of {count(part['rows'])} {split} rows ask for things of which train has nothing: their "
                    "clusters hold no row of train"
                )
                advice = f"gather such rows to train on, or take them out of {split}; card.json lists the clusters"
                found.append(finding(level, "meaning_not_trained", lost, text, next=advice))
        return found

    def show(self, section: JsonObject) -> Sequence[Block]:
        rows, found, splits = section["rows"], section["clusters"], section["splits"]
        figures = [
            ("rows looked at", count(rows)),
            ("clusters", count(len(found))),
            ("effective clusters", number(section["effective"])),
            ("Vendi score", number(section["vendi"])),
            *((f"clusters in {name}", count(part["clusters"])) for name, part in splits.items()),
        ]
        lines = [
            [one["text"], count(one["rows"]), share(one["rows"], rows),
             *(count(one["splits"][name]) for name in splits), number(one["alike"])]
            for one in found[:SHOWN]
        ]  # fmt: skip
        rest = len(found) - SHOWN
        note = f"Encoder {section['encoder']}." + (
            f" {count(rest)} smaller clusters stand in card.json." if rest > 0 else ""
        )
        head = ["the most central instruction", "rows", "of all", *splits, "alike"]
        return [Figures(figures), Table(head, lines, title="The largest clusters", note=note)]
