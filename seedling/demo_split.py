"""Which words and number pairs the demo keeps for its test rows."""

import random
import re
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

from seedling.tables import LANGUAGES, table
from seedling.tasks import VOCABULARY, Vocabulary
from seedling.text import wordings

HELD_OUT_SHARE = 0.2
_FILES = ("relations", "arithmetic", "frames", "tasks", "people", "reviews")


def contains(text: str, words: str) -> bool:
    """Whether the text has the words: whole words (also in the plural) in English, anywhere in Chinese."""
    if not words.isascii():
        return words in text
    return re.search(rf"(?<![A-Za-z0-9]){re.escape(words)}(?:s|es)?(?![A-Za-z0-9])", text, re.IGNORECASE) is not None


@dataclass(frozen=True)
class Split:
    """The held-out words of both languages and the held-out operands."""

    words: frozenset[str]
    pairs: frozenset[tuple[int, int]]

    @cached_property
    def _english(self) -> re.Pattern[str]:
        options = "|".join(re.escape(w) for w in sorted(self.words, key=len, reverse=True) if w.isascii())
        return re.compile(rf"(?<![A-Za-z0-9])(?:{options})(?:s|es)?(?![A-Za-z0-9])", re.IGNORECASE)

    @cached_property
    def _chinese(self) -> re.Pattern[str]:
        return re.compile("|".join(re.escape(w) for w in self.words if not w.isascii()))

    def is_held_out(self, word: str) -> bool:
        """Whether only test rows may have the word."""
        return word in self.words

    def is_pair_held_out(self, x: int, y: int) -> bool:
        """Whether only test rows may combine the two numbers, in any order and operation."""
        return (min(x, y), max(x, y)) in self.pairs

    def mentions_held_out(self, *texts: str) -> bool:
        """Whether any of the texts has a held-out word."""
        return any(self._english.search(text) or self._chinese.search(text) for text in texts)

    def vocabulary(self, language: str, side: str) -> Vocabulary:
        """The words of one side."""
        words = VOCABULARY[language]

        def ours(options: list[str]) -> list[str]:
            return [word for word in options if self.is_held_out(word) == (side == "test")]

        return Vocabulary(
            names=ours(words.names),
            cities=ours(words.cities),
            nouns={category: ours(options) for category, options in words.nouns.items()},
            sentiment={key: ours(options) for key, options in words.sentiment.items()},
        )


def draw_split(rng: random.Random) -> Split:
    """Hold back whole facts: a country with its capital, a word with its translation or opposite."""
    frozen = _wording_text()
    groups = [
        [(row["en"], row["zh"], row["capital_en"], row["capital_zh"]) for row in table("countries")],
        *([(r["word"], r["opposite"]) for r in table("opposites") if r["language"] == la] for la in LANGUAGES),
        *([(row["name"],) for row in table("names") if row["language"] == language] for language in LANGUAGES),
    ]
    by_category: dict[str, list[tuple[str, ...]]] = {}
    for row in table("words"):
        by_category.setdefault(row["category"], []).append((row["en"], row["zh"]))
    by_polarity: dict[str, list[tuple[str, ...]]] = {}
    for row in table("sentiment"):
        key = f"{row['language']} {row['polarity']} {row['form']} {row['domain']}"
        by_polarity.setdefault(key, []).append((row["word"],))
    words: set[str] = set()
    for group in chain(groups, by_category.values(), by_polarity.values()):
        # A word of one Chinese character would be found in half of all sentences.
        usable = [g for g in group if all(w.isascii() or len(w) > 1 for w in g)]
        usable = [g for g in usable if not any(contains(frozen, w) for w in g)]
        count = max(2, round(HELD_OUT_SHARE * len(group)))
        words.update(chain.from_iterable(rng.sample(usable, min(len(usable), count))))
    pairs = [(x, y) for x in range(1, 16) for y in range(x, 16)]
    return Split(frozenset(words), frozenset(rng.sample(pairs, len(pairs) // 4)))


def _wording_text() -> str:
    return "\n".join(line for file in _FILES for lines in wordings(file).values() for line in lines)
