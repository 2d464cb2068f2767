"""Where in the prompt the key information sits: head, middle or tail.

What the answer says and the prompt says too, but few other prompts say, is taken for key information: numbers, names
and other rare words, and runs of three Chinese characters. A model trained where it always sits in one place looks
there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from tuneloop.core.conversation import JsonObject
from tuneloop.data.audit.blocks import Block, Columns, Figures, Table
from tuneloop.data.audit.question import Question
from tuneloop.data.audit.reading import Reading, Row
from tuneloop.data.findings import finding
from tuneloop.pages.numbers import count, share
from tuneloop.stats.intervals import wilson
from tuneloop.texts.words import HAN, KANA

MOST = 10_000  # rows
CHARACTERS = 20_000  # of a prompt; the thirds of a longer one are those of this part
SHORTEST = 40  # characters of a prompt that has a head, a middle and a tail; Chinese ones count three times
USUAL = 0.05  # of the prompts: what more of them say belongs to a template or to the language
OFTEN = 3  # times in one prompt: what it says so often has no place
DOMINANT = 0.6  # of the located rows; a third would be even
ENOUGH = 30
BINS = 12
THIRDS = ("head", "middle", "tail")

_RUN = re.compile(
    rf"(?P<number>(?<![0-9A-Za-z.])[0-9]+(?:[.,:/\-][0-9]+)*(?![0-9A-Za-z]))"
    rf"|(?P<dense>[{HAN}{KANA}]{{2,}})|(?P<word>[^\W\d_{HAN}{KANA}]{{3,}})"
)


class Positions(Question):
    """The place of the key information in the sample's prompts."""

    name = "positions"
    title = "Where the key information sits"
    about = (
        "What an answer takes from its prompt (numbers, names, rare words, runs of Chinese characters), by its place "
        "in the prompt. Rows whose answer takes nothing from the prompt, and very short prompts, do not count."
    )
    unchecked = "no prompt is long enough to have a head, a middle and a tail"

    def measure(self, data: Reading) -> JsonObject | None:
        rows = [row for row in data.some(MOST) if _size(row.prompt) >= SHORTEST]
        if not rows:
            return None
        usual = _usual(rows)
        by_language: dict[str, list[np.ndarray]] = {}
        bins = np.zeros(BINS)
        for row in rows:
            places = _places(row, usual)
            if places:
                counted = np.bincount([int(place * BINS) for place in places], minlength=BINS) / len(places)
                bins += counted
                by_language.setdefault(row.language, []).append(counted.reshape(3, -1).sum(axis=1))
        located = [one for found in by_language.values() for one in found]
        return {
            "rows": len(rows),
            "located": len(located),
            "thirds": _thirds(located),
            "histogram": [round(float(value), 3) for value in bins],
            "languages": {
                name: {"located": len(found), "thirds": _thirds(found)}
                for name, found in sorted(by_language.items(), key=lambda item: (-len(item[1]), item[0]))
            },
        }

    def judge(self, section: JsonObject) -> list[JsonObject]:
        located, thirds = section["located"], section["thirds"]
        if located < ENOUGH:
            return []
        largest = max(THIRDS, key=lambda name: thirds[name])
        low, high = wilson(thirds[largest], located)
        if low <= DOMINANT:
            return []
        text = (
            f"in {share(thirds[largest], located)} (95 %: {share(low)} to {share(high)}) of {count(located)} rows "
            f"the key information sits in the {largest} of the prompt"
        )
        advice = "vary where instruction, context and question stand, for instance by a template for a part of the rows"
        return [finding("WARN", "key_position", round(thirds[largest]), text, next=advice)]

    def show(self, section: JsonObject) -> Sequence[Block]:
        located = section["located"]
        figures = [(name, share(section["thirds"][name], located)) for name in THIRDS]
        figures.append(("rows located", f"{count(located)} of {count(section['rows'])}"))
        if not located:
            return [Figures(figures[-1:])]
        labels = [f"{100 * index // BINS}" for index in range(BINS)]
        series = [("key information", section["histogram"])]
        head = ["language", "located", *THIRDS]
        lines = [
            [name, count(row["located"]), *(share(row["thirds"][third], row["located"]) for third in THIRDS)]
            for name, row in section["languages"].items()
        ]
        return [
            Figures(figures),
            Columns("Place in the prompt", labels, series, "% of the prompt"),
            Table(head, lines, title="By language", beside=True),
        ]


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text) + 2 * sum(character >= "\u2e80" for character in text[:SHORTEST])


def _units(text: str) -> Iterator[tuple[str, int]]:
    """(unit, place) of numbers, words of three letters and more, and every run of three Chinese characters."""
    for found in _RUN.finditer(text):
        run, start = found.group(), found.start()
        if found.lastgroup == "dense":
            for offset in range(max(1, len(run) - 2)):
                yield run[offset : offset + 3], start + offset
        else:
            yield run.lower(), start


def _usual(rows: Sequence[Row]) -> set[str]:
    """Units that many prompts have."""
    counted: Counter[str] = Counter()
    for row in rows:
        counted.update({unit for unit, _ in _units(row.prompt[:CHARACTERS])})
    most = max(2, USUAL * len(rows))
    return {unit for unit, number in counted.items() if number > most}


def _places(row: Row, usual: set[str]) -> list[float]:
    """Places in the prompt, from 0 to below 1, of the units that the answer says too."""
    said = {unit for unit, _ in _units(row.answer[:CHARACTERS])} - usual
    if not said:
        return []
    prompt = row.prompt[:CHARACTERS]
    places: dict[str, list[int]] = {}
    for unit, place in _units(prompt):
        if unit in said:
            places.setdefault(unit, []).append(place)
    return [place / len(prompt) for found in places.values() if len(found) <= OFTEN for place in found]


def _thirds(located: Sequence[np.ndarray]) -> dict[str, float]:
    """Rows by the third of their key information; a row with some of it in two thirds counts for a part in each."""
    sums = np.sum(located, axis=0) if located else np.zeros(len(THIRDS))
    return {name: round(float(value), 3) for name, value in zip(THIRDS, sums, strict=True)}
