"""The pre-training text: an endless, deterministic stream of short documents."""

import random
from collections.abc import Callable, Iterator

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
    "statements": 0.24,
    "questions": 0.36,
    "sums": 0.08,  # about 900 sums, and digits are cheap to learn
    "topics": 0.05,  # the category of a noun is also stated among the facts
    "reviews": 0.07,  # the widest English vocabulary after the stories
    "records": 0.08,  # copying: the induction heads that every form needs
    "stories": 0.10,  # connected prose, pronouns, connectives
    "sayings": 0.02,  # a small fixed text: more would only be learnt by heart
}
# A share of long documents, or the model would never have seen a position beyond 250.
LONG_SHARE = 0.03
# A Chinese document is a little longer in tokens than its English sister; this evens out the tokens.
CHINESE_SHARE = 0.45


def documents(seed: int) -> Iterator[str]:
    """Documents without end; the same seed gives the same stream."""
    rng = random.Random(seed)
    while True:
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
    kinds = rng.choice(
        (["stories"], ["reviews"], ["statements"], ["stories", "reviews", "statements", "questions"])
    )
    size = rng.randint(900, 2600) if language == "en" else rng.randint(300, 800)
    paragraphs: list[str] = []
    while sum(map(len, paragraphs)) < size:
        paragraphs.append(KINDS[rng.choice(kinds)](rng, language))
    return "\n\n".join(paragraphs)
