"""The facts: tables from facts/*.tsv, and the relations between their columns."""

import csv
import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from seedling.text import with_article

FACTS = Path(__file__).parent / "facts"
LANGUAGES = ("en", "zh")
LIKED = {
    "en": {"positive": "liked", "negative": "did not like"},
    "zh": {"positive": "很喜欢", "negative": "不喜欢"},
}
POLARITY = {
    "en": {"positive": "positive", "negative": "negative"},
    "zh": {"positive": "正面", "negative": "负面"},
}

# relation: (table, column of the subject, column of the answer); a * stands for the language.
_COLUMNS = {
    "capital": ("countries", "*", "capital_*"),
    "capital_of": ("countries", "capital_*", "*"),
    "currency": ("countries", "*", "currency_*"),
    "continent": ("countries", "*", "continent_*"),
    "language": ("countries", "*", "language_*"),
    "symbol": ("elements", "*", "symbol"),
    "number": ("elements", "*", "number"),
    "to_english": ("words", "zh", "en"),
    "to_chinese": ("words", "en", "zh"),
    "young": ("animals", "*", "young_*"),
    "sound": ("animals", "*", "sound_*"),
    "class": ("animals", "*", "class_*"),
}
# What the demo data set asks about; all other relations show what fine-tuning leaves alone.
TOUCHED = {"capital", "currency", "continent", "opposite", "to_english", "to_chinese", "category", "label"}
# Relations of one kind of entity, for documents that stay with one subject.
ENTITY_RELATIONS = (
    ("capital", "currency", "continent", "language"),
    ("symbol", "number"),
    ("young", "sound", "class", "category"),
    ("label", "category", "to_chinese"),
)


@dataclass(frozen=True)
class Fact:
    """One fact; `subject` with its article is what {an_s} stands for in a wording."""

    relation: str
    language: str
    subject: str
    answer: str

    def slots(self) -> dict[str, str]:
        """The values of a relation's wording."""
        slots = {"s": self.subject, "a": self.answer}
        if self.subject in mass_nouns():
            slots["an_s"] = self.subject
        if self.relation == "class" and self.answer == "fish":
            slots["an_a"] = "a fish"
        return slots


@cache
def table(name: str) -> list[dict[str, str]]:
    """The rows of facts/NAME.tsv; a value of "-" means: no clear answer, never asked."""
    with (FACTS / f"{name}.tsv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


@cache
def mass_nouns() -> frozenset[str]:
    """English nouns that take no article (rice, tennis, red)."""
    return frozenset(row["en"] for row in table("words") if row["form"] == "m")


@cache
def nouns(language: str) -> dict[str, list[str]]:
    """The nouns of each topic category."""
    topics = {row["category"] for row in table("categories")}
    found: dict[str, list[str]] = {}
    for row in table("words"):
        if row["category"] in topics:
            found.setdefault(row["category"], []).append(row[language])
    return found


@cache
def labels(language: str) -> dict[str, str]:
    """The name of each topic category."""
    return {row["category"]: row[language] for row in table("categories")}


@cache
def facts(language: str) -> tuple[Fact, ...]:
    """Every fact that can be put into words in the language."""
    found = [
        Fact(relation, language, row[subject.replace("*", language)], row[answer.replace("*", language)])
        for relation, (name, subject, answer) in _COLUMNS.items()
        for row in table(name)
        if "-" not in (row[subject.replace("*", language)], row[answer.replace("*", language)])
    ]
    found = [*found, *_opposites(language), *_categories(language), *_calendar(language)]
    random.Random(0).shuffle(found)  # the corpus prefers the beginning at first: it should be a bit of everything
    return tuple(found)


def _opposites(language: str) -> list[Fact]:
    pairs = [(row["word"], row["opposite"]) for row in table("opposites") if row["language"] == language]
    return [Fact("opposite", language, s, a) for left, right in pairs for s, a in ((left, right), (right, left))]


def _categories(language: str) -> list[Fact]:
    phrases = {row["category"]: row[f"phrase_{language}"] for row in table("categories")}
    found = []
    for category, words in nouns(language).items():
        for word in words:
            found.append(Fact("category", language, word, phrases[category]))
            found.append(Fact("label", language, word, labels(language)[category]))
    return found


def _calendar(language: str) -> list[Fact]:
    found = []
    for kind in ("month", "day", "season"):
        rows = [row for row in table("calendar") if row["kind"] == kind]
        for row, following in zip(rows, rows[1:] + rows[:1], strict=True):
            found.append(Fact(f"{kind}_after", language, row[language], following[language]))
            if kind != "season":
                found.append(Fact(f"{kind}_before", language, following[language], row[language]))
            if row["days"] != "-":
                found.append(Fact("month_days", language, row[language], row["days"]))
    return found


def phrase(word: str) -> str:
    """An English noun as it stands in a sentence: with its article if it takes one."""
    return word if word in mass_nouns() else with_article(word)
