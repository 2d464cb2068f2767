"""Exercises with made-up inputs (sums, topics, reviews, records), for the pre-training text and the demo."""

import json
import random
from dataclasses import dataclass
from functools import cache
from itertools import product

from seedling.tables import LANGUAGES, POLARITY, labels, nouns, phrase, table
from seedling.text import fill, wordings

Record = dict[str, str | int]
FIELD_SETS = {
    "en": ("name,age,city", "name,job,city", "name,age,job"),
    "zh": ("name,city,age", "name,job,city", "name,age,job"),
}
_EXTRA_FIELDS = {"en": ("name,city", "name,sport,age"), "zh": ("name,city", "name,sport,age")}

_DOMAINS = ("film", "film", "film", "book", "food", "service", "staff")


@dataclass
class Vocabulary:
    """The words an exercise may use; the demo holds some back from its training files."""

    names: list[str]
    cities: list[str]
    nouns: dict[str, list[str]]
    sentiment: dict[tuple[str, str], list[str]]


def vocabulary(language: str) -> Vocabulary:
    """All words of the tables."""
    sentiment: dict[tuple[str, str], list[str]] = {}
    for row in table("sentiment"):
        if row["language"] == language:
            sentiment.setdefault((row["polarity"], row["form"]), []).append(row["word"])
    return Vocabulary(
        names=[row["name"] for row in table("names") if row["language"] == language],
        cities=[row[f"capital_{language}"] for row in table("countries")],
        nouns=nouns(language),
        sentiment=sentiment,
    )


VOCABULARY = {language: vocabulary(language) for language in LANGUAGES}


def all_sums() -> list[tuple[str, int, int, int]]:
    """Every (operation, x, y, result) of the pre-training text."""
    added = [("add", x, y, x + y) for x, y in product(range(1, 11), repeat=2)]
    taken = [("sub", x, y, x - y) for x in range(1, 13) for y in range(1, x + 1)]
    times = [("mul", x, y, x * y) for x, y in product(range(1, 10), repeat=2)]
    return added + taken + times


def sum_wordings(lines: list[str], x: int, y: int, result: int) -> list[str]:
    """The wordings that fit: "1 apples" and "gets 0 more" are left out."""
    return lines if min(x, y, result) > 1 else [line for line in lines if "{thing}" not in line]


def sum_slots(rng: random.Random, language: str, x: int, y: int, result: int) -> dict[str, str]:
    """The values of a wording in arithmetic.txt."""
    names = VOCABULARY[language].names
    thing = rng.choice(wordings("arithmetic")[f"thing {language}"])
    return {"x": str(x), "y": str(y), "a": str(result), "name": rng.choice(names), "thing": thing}


def topic_sentence(rng: random.Random, language: str, words: Vocabulary, categories: list[str]) -> tuple[str, str, str]:
    """A sentence about one noun, its category and the noun."""
    category = rng.choice(categories)
    word = rng.choice(words.nouns[category])
    frames = wordings("frames")
    general = rng.random() < 0.3 and category not in ("sport", "colour", "weather", "body")
    frame = rng.choice(frames[f"any {language}" if general else f"{category} {language}"])
    return fill(frame, language, x=word, an_x=phrase(word)), category, word


def label_list(rng: random.Random, language: str, categories: list[str]) -> str:
    """The names of the categories in random order, as a list in a sentence."""
    names = [labels(language)[category] for category in categories]
    rng.shuffle(names)
    if language == "zh":
        return "、".join(names)
    return f"{', '.join(names[:-1])} or {names[-1]}"


def opinion(rng: random.Random, language: str, words: Vocabulary, polarity: str, domain: str | None = None) -> str:
    """One sentence that praises or blames."""
    domain = domain or rng.choice(_DOMAINS)
    forms = ("adj", "adj", "adj", "noun", "verb") if language == "en" else ("adj", "adj", "adj", "idiom")
    form = rng.choice(forms) if domain in ("film", "book") else "adj"
    subjects = [row["noun"] for row in table("subjects") if (row["language"], row["domain"]) == (language, domain)]
    template = rng.choice(wordings("reviews")[f"{form} {language}"])
    # A second {adj} is another word than the first.
    fitting = {"any", "art" if domain in ("film", "book") else domain}
    adjectives = rng.sample([w for w in words.sentiment[polarity, "adj"] if _word_domains()[w] in fitting], 2)
    if template.count("{adj}") == 2:
        template = template.replace("{adj}", "{adj2}", 1)
    first, second = rng.sample(subjects, 2)
    slots = {"s": first, "s2": second, "adj": adjectives[0], "adj2": adjectives[1]}
    for other in ("noun", "verb", "idiom"):
        if (polarity, other) in words.sentiment:
            slots[other] = rng.choice(words.sentiment[polarity, other])
    return fill(template, language, **slots)


@cache
def _word_domains() -> dict[str, str]:
    return {row["word"]: row["domain"] for row in table("sentiment")}


def review(rng: random.Random, language: str, words: Vocabulary, polarity: str, sentences: int) -> str:
    """Several opinions of one polarity about the same kind of thing, sometimes with a closing remark."""
    domain = rng.choice(_DOMAINS)
    parts = [opinion(rng, language, words, polarity, domain) for _ in range(sentences)]
    if rng.random() < 0.4:
        parts.append(rng.choice(wordings("reviews")[f"close {polarity} {language}"]))
    return (" " if language == "en" else "").join(parts)


def polarity_name(language: str, polarity: str) -> str:
    """The label of a polarity."""
    return POLARITY[language][polarity]


def person(rng: random.Random, language: str, words: Vocabulary, fields: str | None = None) -> tuple[str, Record]:
    """A sentence about a person and the record it states; keys are in the order of the section's name."""
    fields = fields or rng.choice(FIELD_SETS[language] + _EXTRA_FIELDS[language])
    values: Record = {
        "name": rng.choice(words.names),
        "age": rng.randint(6, 90) if "job" not in fields else rng.randint(20, 65),
        "city": rng.choice(words.cities),
        "job": rng.choice(words.nouns["job"]),
        "sport": rng.choice(words.nouns["sport"]),
    }
    template = rng.choice(wordings("people")[f"{fields} {language}"])
    sentence = fill(template, language, **{key: str(value) for key, value in values.items()})
    return sentence, {key: values[key] for key in fields.split(",")}


def key_names(language: str) -> dict[str, str]:
    """The names of the record fields in the language."""
    return dict(line.split("=") for line in wordings("people")[f"keys {language}"])


def localised(record: Record, language: str) -> Record:
    """The record with the language's field names."""
    return {key_names(language)[key]: value for key, value in record.items()}


def key_list(record: Record, language: str) -> str:
    """The field names as a list in a sentence."""
    keys = list(localised(record, language))
    return "、".join(keys) if language == "zh" else f"{', '.join(keys[:-1])} and {keys[-1]}"


def as_json(record: Record, language: str) -> str:
    """The record as one line of JSON."""
    return json.dumps(localised(record, language), ensure_ascii=False)
