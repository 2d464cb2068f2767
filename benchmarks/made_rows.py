"""Rows for benchmarks: real instruction rows recombined, with planted defects; the same for the same seed."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SHARES = {"exact": 0.12, "near": 0.10, "mojibake": 0.02, "other_language": 0.03, "short": 0.03}  # the rest is unique
LENGTH = 406  # characters a row on average, as measured on the public demo rows
_SENTENCE = re.compile(r"[^。！？!?\n]+?(?:[。！？!?]+|\.(?=\s)|\n|$)")
_OTHER = [  # rows in other languages: a language filter for zh and en should drop them
    ("東京の天気はどうですか。", "今日の東京は晴れていて、気温は二十度くらいです。夕方から雲が出ます。"),
    ("서울에서 무엇을 먹을까요?", "서울에서는 비빔밥과 냉면을 드셔 보세요. 시장의 떡볶이도 맛있습니다."),
    ("Quelle est la capitale de la France ?", "La capitale de la France est Paris, avec la tour Eiffel et le Louvre."),
    ("Wie koche ich Kartoffeln?", "Die Kartoffeln schälen und in Salzwasser etwa zwanzig Minuten lang kochen."),
    ("Как дойти до вокзала?", "Идите прямо до перекрёстка, затем поверните налево, и вы увидите здание вокзала."),
    ("¿Qué tiempo hará mañana?", "Mañana hará sol por la mañana y por la tarde lloverá un poco en toda la costa."),
]  # fmt: skip
Row = dict[str, str]


def rows(sources: list[Path], count: int, seed: int = 7) -> Iterator[Row]:
    """So many rows {instruction, input, output}; half of the unique ones are Chinese where the sources have both."""
    rng = random.Random(seed)
    pools = _pools(sources)
    unique: list[Row] = []
    kinds, weights = [*SHARES, "unique"], [*SHARES.values(), 1 - sum(SHARES.values())]
    for number in range(count):
        kind = rng.choices(kinds, weights)[0] if unique else "unique"
        if kind == "exact":
            yield dict(rng.choice(unique))
        elif kind == "near":
            yield _edited(rng.choice(unique), rng)
        elif kind == "other_language":
            asked, answered = rng.choice(_OTHER)
            yield {"instruction": f"{asked} ({number})", "input": "", "output": answered * rng.randint(1, 4)}
        elif kind == "short":
            yield {"instruction": rng.choice(["?", "hm", "嗯"]), "input": "", "output": rng.choice(["ok", "。", "好"])}
        else:
            row = _recombined(pools[rng.choice(sorted(pools))], rng)
            unique.append(row)
            yield _garbled(row) if kind == "mojibake" else row


def _pools(sources: list[Path]) -> dict[str, tuple[list[str], list[str]]]:
    """Instructions and sentences of the sources, by language."""
    pools: dict[str, tuple[list[str], list[str]]] = {}
    for source in sources:
        text = source.read_text("utf-8")
        records: list[dict[str, Any]] = (
            json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines()]
        )
        for record in records:
            whole = f"{record['instruction']} {record.get('input', '')}".strip()
            language = "zh" if re.search("[\u4e00-\u9fff]", whole) else "en"
            instructions, sentences = pools.setdefault(language, ([], []))
            instructions.append(whole)
            sentences += [found[0].strip() for found in _SENTENCE.finditer(record["output"]) if len(found[0]) > 8]
    return pools


def _recombined(pool: tuple[list[str], list[str]], rng: random.Random) -> Row:
    instructions, sentences = pool
    instruction, output = rng.choice(instructions)[:200], ""
    target = rng.randint(LENGTH // 5, int(1.65 * LENGTH)) - len(instruction)
    while len(output) < target:
        output += rng.choice(sentences) + (" " if sentences[0].isascii() else "")
    return {"instruction": instruction, "input": "", "output": output.strip() or sentences[0]}


def _edited(row: Row, rng: random.Random) -> Row:
    """A near duplicate: about 3 % of the answer's characters are doubled."""
    output = "".join(character * 2 if rng.random() < 0.03 else character for character in row["output"])
    return {**row, "output": output + "."}


def _garbled(row: Row) -> Row:
    """UTF-8 read as Windows-1252 or GBK, as it happens between spreadsheets."""
    marked = f"“{row['output']}”"
    if row["output"].isascii():
        return {**row, "output": marked.encode().decode("cp1252", "replace")}
    return {**row, "output": row["output"].encode("gb18030").decode("latin-1")}
