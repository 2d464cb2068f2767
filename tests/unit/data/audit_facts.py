"""Facts made from Examples, as the pipeline gathers them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from tuneloop.core.conversation import Example, JsonObject, Message, Origin
from tuneloop.data.audit import audit
from tuneloop.data.facts import Facts, Forecast, SourceFacts
from tuneloop.texts.words import count_words, prompt_key, script_of, spoken

SCHEMA = {
    "split": pl.String, "source": pl.String, "row": pl.UInt32, "id": pl.String, "language": pl.String,
    "prompt_words": pl.Int32, "answer_words": pl.Int32, "label": pl.String, "cluster": pl.Int64, "repaired": pl.Boolean,
}  # fmt: skip


def pair(asked: str, answer: str, row: int = 0, source: str = "a.jsonl", **meta: Any) -> Example:
    return Example((Message("user", asked), Message("assistant", answer)), Origin(source, row), (), meta)


def pairs(texts: Sequence[tuple[str, str]], **meta: Any) -> list[Example]:
    return [pair(asked, answer, row, **meta) for row, (asked, answer) in enumerate(texts)]


def alpaca(path: Path) -> list[Example]:
    rows = json.loads(path.read_text("utf-8"))
    return pairs([("\n".join(filter(None, (row["instruction"], row["input"]))), row["output"]) for row in rows])


def place(example: Example) -> str:
    u = int.from_bytes(prompt_key(example)[:8]) / 2**64
    return "test" if u < 0.1 else "val" if u < 0.2 else "train"


def facts(
    examples: Sequence[Example],
    splits: Sequence[str] | None = None,
    clusters: Sequence[int | None] | None = None,
    dropped: Mapping[tuple[str, str, str], int] | None = None,
    prompts: bool = False,
    **more: Any,
) -> Facts:
    splits = splits or [place(example) for example in examples]
    clusters = clusters or [None] * len(examples)
    lost = Counter(dropped or {})
    rows = []
    for example, split, cluster in zip(examples, splits, clusters, strict=True):
        words = (
            count_words("\n".join(spoken(message) for message in example.prompt)),
            count_words(spoken(example.answer)),
        )
        written = script_of("".join(message.content for message in example.messages))
        language = {"latin": "en"}.get(written, written)
        origin = example.origin
        rows.append((split, origin.source, origin.row, example.id, language, *words, example.meta.get("label"), cluster,
                     "repaired" in example.meta))  # fmt: skip
    table = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    if prompts:
        keys = [int.from_bytes(prompt_key(example)[:8]) for example in examples]
        table = table.with_columns(pl.Series("prompt", keys, dtype=pl.UInt64))
    size = Counter(example.origin.source for example in examples)
    for (source, _, _), count in lost.items():
        size[source] += count
    values = {"findings": (), "shares": {"train": 0.8, "val": 0.1, "test": 0.1}, "forecast": None, **more}
    values.setdefault("sources", [SourceFacts(s, s, "alpaca", 0.98, "utf-8", n, n) for s, n in size.items()])
    values.setdefault("sample", list(zip(splits, examples, strict=True)))
    return Facts(table=table, dropped=lost, rows_in=len(examples) + lost.total(), **values)


def card_of(examples: Sequence[Example], **more: Any) -> JsonObject:
    return audit(facts(examples, **more))


def codes(card: JsonObject) -> dict[str, str]:
    """Code: level, without what only describes."""
    return {found["code"]: found["level"] for found in card["findings"] if found["level"] != "INFO"}


def forecast(tokens: Sequence[int], supervised: Sequence[int], max_length: int = 512) -> Forecast:
    import numpy as np

    return Forecast(np.array(tokens), np.array(supervised), max_length, "some/model")
