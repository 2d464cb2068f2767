"""How varied the instructions are: distinct n-grams, compression, near-duplicates, and how many topics there are."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from tuneloop.core.conversation import JsonObject
from tuneloop.data.audit.blocks import Block, Figures, Line, Table
from tuneloop.data.audit.question import Question
from tuneloop.data.audit.quote import quoted
from tuneloop.data.audit.reading import Reading, Row
from tuneloop.data.audit.topics import topics
from tuneloop.data.audit.units import chinese_words, words
from tuneloop.data.findings import finding
from tuneloop.pages.numbers import count, number, share

WINDOW = 10_000  # words: distinct n-grams become fewer as a text grows, so they are counted in windows of one size
WINDOWS = 10
COMPRESSED = 1_000_000  # characters
TOPICS = 2_000  # rows
SHOWN = 8
CUT = 100  # characters of a prototype shown
NEAR_MANY = 0.05
ENOUGH = 50
LANGUAGES = 4


class Diversity(Question):
    """Variety of the first user messages of the sample."""

    name = "diversity"
    title = "Instruction diversity"
    about = (
        "distinct-n: different n-grams per 10,000 words (of all, where there are fewer), so that data sets of other "
        "sizes compare; gzip: how many times shorter the text becomes, more is more repetitive (Shaib et al. 2024). "
        "Both compare within a language only. A prototype covers the instructions that share its rarer words."
    )
    unchecked = "no row has a user message"

    def measure(self, data: Reading) -> JsonObject | None:
        rows = [row for row in data.rows if row.asked.strip()]
        if not rows:
            return None
        languages: dict[str, list[Row]] = {}
        for row in rows:
            languages.setdefault(row.language, []).append(row)
        largest = sorted(languages.items(), key=lambda item: (-len(item[1]), item[0]))[:LANGUAGES]
        measures = [
            {"language": name, "of": side, "rows": len(found), **measured}
            for name, found in largest
            for side, texts in (("instruction", [r.asked for r in found]), ("answer", [r.answer for r in found]))
            for measured in _variety(texts, name)
        ]
        clusters = data.near.clusters()
        return {
            "rows": len(rows),
            "measures": measures,
            "near_duplicates": {"rows": len(clusters), "more_than_once": len(clusters) - len(np.unique(clusters))},
            "topics": _topics(data),
        }

    def judge(self, section: JsonObject) -> list[JsonObject]:
        near = section["near_duplicates"]
        if near["rows"] < ENOUGH or near["more_than_once"] <= NEAR_MANY * near["rows"]:
            return []
        text = f"{share(near['more_than_once'], near['rows'])} of the prompts say the same as another one, or nearly so"
        advice = "add the steps exact_duplicates and near_duplicates; fine where one prompt has several good answers"
        return [finding("WARN", "near_duplicates_left", near["more_than_once"], text, next=advice)]

    def show(self, section: JsonObject) -> Sequence[Block]:
        near, found = section["near_duplicates"], section["topics"]
        figures = [
            ("repeat another prompt", share(near["more_than_once"], near["rows"])),
            ("prototypes for half", count(found["needed"]["50"])),
            ("prototypes for 90 %", count(found["needed"]["90"])),
            ("effective topics", f"{count(found['effective'])} of {count(found['rows'])} rows"),
        ]
        lines = [
            [one["language"], one["of"], one["unit"], count(one["words"]), number(one["distinct_1"]),
             number(one["distinct_2"]), number(one["gzip"])]
            for one in section["measures"]
        ]  # fmt: skip
        head = ["language", "of", "words are", "words", "distinct-1", "distinct-2", "gzip"]
        curve = Line(
            "Instructions covered by the largest topics", [tuple(p) for p in found["curve"]], "prototypes", "% covered"
        )
        examples = [[one["text"], count(one["rows"]), share(one["rows"], found["rows"])] for one in found["largest"]]
        return [
            Figures(figures),
            *([curve] if found["prototypes"] > 1 else []),
            Table(["a prototype", "covers", "of all"], examples, title="The largest topics", beside=True),
            Table(head, lines, title="Variety of words", text=3),
        ]


def _variety(texts: Sequence[str], language: str) -> list[dict[str, Any]]:
    """distinct-1, distinct-2 and compression; Chinese by character and by word."""
    whole = "\n".join(texts)[:COMPRESSED]
    data = whole.encode("utf-8", "surrogatepass")
    ratio = round(len(data) / len(gzip.compress(data, 6, mtime=0)), 3) if data else 0.0
    cuts = [("characters", words), ("words", chinese_words)] if language == "zh" else [("words", words)]
    out: list[dict[str, Any]] = []
    for unit, cut in cuts:
        found: list[str] = []
        for text in texts:
            if len(found) >= WINDOW * WINDOWS:
                break
            found += cut(text)
        windows = [found[start : start + WINDOW] for start in range(0, len(found), WINDOW)]
        full = [window for window in windows if len(window) == WINDOW][:WINDOWS] or windows
        out.append({
            "unit": unit,
            "words": sum(map(len, full)),
            "distinct_1": _mean([len(set(window)) / len(window) for window in full]),
            "distinct_2": _mean([len(set(pairwise(window))) / max(1, len(window) - 1) for window in full]),
            "gzip": ratio,
        })  # fmt: skip
    return out


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None


def _topics(data: Reading) -> dict[str, Any]:
    rows = [row for row in data.some(TOPICS) if row.asked.strip()]
    found = topics([row.asked for row in rows])
    covered = np.cumsum(found.sizes) / max(1, len(rows))
    steps = np.unique(np.geomspace(1, max(1, len(covered)), 60).astype(int)) if len(covered) else []
    return {
        "rows": len(rows),
        "prototypes": len(found.prototypes),
        "needed": {"50": found.needed(0.5), "90": found.needed(0.9)},
        "effective": round(found.effective, 1),
        "curve": [[0, 0.0], *([int(step), round(100 * float(covered[step - 1]), 1)] for step in steps)],
        "largest": [
            {"text": quoted(rows[prototype].asked, CUT), "rows": size}
            for prototype, size in zip(found.prototypes[:SHOWN], found.sizes, strict=False)
        ],
    }
