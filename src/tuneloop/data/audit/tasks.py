"""What the instructions ask for: the verbs and what they act on, in Chinese and English."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tuneloop.core.conversation import JsonObject
from tuneloop.data.audit.blocks import Block, Figures, Rings
from tuneloop.data.audit.phrases import phrases
from tuneloop.data.audit.question import Question
from tuneloop.data.audit.reading import Reading
from tuneloop.data.audit.units import is_chinese
from tuneloop.pages.numbers import count, share

MOST = 20_000  # rows
VERBS = 16
OBJECTS = 4


class Tasks(Question):
    """Verbs and their objects in the first user messages of the sample."""

    name = "tasks"
    title = "Verbs and objects"
    about = (
        "The first verb of an instruction and its object, as in Self-Instruct (Wang et al. 2023); by word lists and, "
        "in Chinese, parts of speech. Questions without such a verb count by their question word. A verb's share of "
        "the outer ring is divided among its most frequent objects."
    )
    unchecked = "no row has a user message"

    def measure(self, data: Reading) -> JsonObject | None:
        texts = [row.asked for row in data.some(MOST) if row.asked.strip()]
        if not texts:
            return None
        found: JsonObject = {"rows": len(texts), "languages": {}}
        for name, chinese in (("zh", True), ("en", False)):
            some = [text for text in texts if is_chinese(text) == chinese]
            if some:
                found["languages"][name] = _map(some)
        return found

    def show(self, section: JsonObject) -> Sequence[Block]:
        blocks: list[Block] = []
        for name, part in section["languages"].items():
            tree = [(verb["verb"], verb["rows"], [tuple(one) for one in verb["objects"]]) for verb in part["verbs"]]
            title = {"zh": "Chinese instructions", "en": "English and other instructions"}[name]
            blocks.append(Rings(title, tree, ("verb", "objects")))
        figures = [
            pair
            for name, part in section["languages"].items()
            for pair in (
                (f"{name}: verb found", share(part["recognised"], part["rows"])),
                (f"{name}: questions", share(part["questions"], part["rows"])),
                (f"{name}: different verbs", count(part["different_verbs"])),
            )
        ]
        return [Figures(figures), *blocks]


def _map(texts: Sequence[str]) -> JsonObject:
    found = phrases(texts)
    verbs: Counter[str] = Counter()
    for (verb, _), rows in found.items():
        verbs[verb] += rows
    questions = sum(rows for verb, rows in verbs.items() if verb.endswith(("?", "？")))
    unknown = verbs.pop("", 0)
    top = sorted(verbs.items(), key=lambda item: (-item[1], item[0]))[:VERBS]
    return {
        "rows": len(texts),
        "recognised": len(texts) - unknown - questions,
        "questions": questions,
        "different_verbs": sum(not verb.endswith(("?", "？")) for verb in verbs),
        "verbs": [{"verb": verb, "rows": rows, "objects": _objects(found, verb)} for verb, rows in top],
    }


def _objects(found: Counter[tuple[str, str]], verb: str) -> list[list[str | int]]:
    named = [(thing, rows) for (other, thing), rows in found.items() if other == verb and thing]
    return [[thing, rows] for thing, rows in sorted(named, key=lambda item: (-item[1], item[0]))[:OBJECTS]]
