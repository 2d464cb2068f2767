"""The pre-training text: a deterministic stream of short documents."""

import random
from collections.abc import Callable, Iterator
from typing import Any

from seedling.corpus.knowledge import (
    question_document,
    review_document,
    statement_document,
    sum_document,
    topic_document,
)
from seedling.corpus.records import record_document
from seedling.corpus.stories import saying_document, story

Kind = Callable[[random.Random, str], str]

KINDS: dict[str, Kind] = {
    "statements": statement_document,
    "questions": question_document,
    "sums": sum_document,
    "topics": topic_document,
    "reviews": review_document,
    "records": record_document,
    "stories": story,
    "sayings": saying_document,
}
# Share of the documents. Facts come twice, stated and asked, because each must be repeated about a hundred
# times to stick and only asking brings the answer to the start of a line.
WEIGHTS = {
    "statements": 0.27,
    "questions": 0.41,
    "sums": 0.13,  # about 350 sums, and digits are cheap to learn
    "topics": 0.03,  # the category of a noun is also stated among the facts
    "reviews": 0.03,  # the widest English vocabulary after the stories
    "records": 0.10,  # copying: the induction heads that every form needs
    "stories": 0.02,  # connected prose, pronouns, connectives
    "sayings": 0.01,  # a small fixed text: more would only be learnt by heart
}
# A share of long documents, or the model would never have seen a position beyond 250.
LONG_SHARE = 0.015
# A Chinese document is a little longer in tokens than its English sister; this evens out the tokens.
CHINESE_SHARE = 0.45


# At first a few entities and wordings come most of the time: a model that meets everything equally often stays on a
# plateau until it has learnt how to recall at all, and the more facts the longer (Zucchet et al. 2025, arXiv
# 2503.21676).
SKEW, SKEWED_SHARE = 4.0, 0.15


class Skewed(random.Random):
    """A random source whose choices prefer the beginning of a sequence: index = n · u ** skew."""

    skew = 1.0

    def choice(self, seq: Any) -> Any:
        """An element; all alike for skew 1."""
        return seq[int(len(seq) * self.random() ** self.skew)]


def documents(seed: int, count: int) -> Iterator[str]:
    """A curriculum of `count` documents; the same seed and count give the same stream."""
    rng = Skewed(seed)
    for number in range(count):
        rng.skew = 1 + (SKEW - 1) * max(0.0, 1 - number / (SKEWED_SHARE * count))
        yield document(rng)[2]


def document(rng: random.Random) -> tuple[str, str, str]:
    """One document as (kind, language, text)."""
    language = "zh" if rng.random() < CHINESE_SHARE else "en"
    if rng.random() < LONG_SHARE:
        return "long", language, _long(rng, language)
    kind = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    return kind, language, KINDS[kind](rng, language)


def _long(rng: random.Random, language: str) -> str:
    """Several paragraphs, of one kind or mixed, up to about 900 tokens."""
    kinds = rng.choice((["stories"], ["reviews"], ["statements"], ["stories", "reviews", "statements", "questions"]))
    size = rng.randint(900, 2600) if language == "en" else rng.randint(300, 800)
    paragraphs: list[str] = []
    while sum(map(len, paragraphs)) < size:
        paragraphs.append(KINDS[rng.choice(kinds)](rng, language))
    return "\n\n".join(paragraphs)
