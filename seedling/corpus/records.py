"""Sentences about people with the filled record: they teach copying (also of names never seen before)."""

import random

from seedling.tables import table
from seedling.tasks import VOCABULARY, Record, Vocabulary, as_json, key_list, localised, person
from seedling.text import fill, questions, typed

_ONSETS = "b br c ch d dr f fl g gr h j k kl l m n p pl qu r s sh sl st t th tr v w y z".split()
_VOWELS = "a e i o u ai ea oo ou".split()
_CODAS = ["", "", "n", "r", "l", "s", "m", "x", "ck", "th"]


def made_up_name(rng: random.Random, language: str) -> str:
    """A name nobody has, so that copying is learnt for any token and not for a list of names."""
    if language == "zh":
        characters = "".join(row["zh"] for row in table("words")) + "".join(row["name"] for row in table("names"))
        han = [c for c in characters if "\u4e00" <= c <= "\u9fff"]
        return "".join(rng.choice(han) for _ in range(rng.choice((2, 2, 3))))
    syllables = [rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(rng.choice((1, 2, 2)))]
    return "".join(syllables).capitalize()


def any_person(rng: random.Random, language: str) -> tuple[str, Record]:
    """A person with a real name or, as often, made-up names."""
    words = VOCABULARY[language]
    if rng.random() < 0.5:
        cities = [made_up_name(rng, language)] if rng.random() < 0.5 else words.cities
        words = Vocabulary([made_up_name(rng, language)], cities, words.nouns, words.sentiment)
    sentence, record = person(rng, language, words)
    if rng.random() < 0.3:
        keys = rng.sample(list(record), len(record))
        record = {key: record[key] for key in keys}
    return sentence, record


def form_pair(rng: random.Random, language: str) -> tuple[str, str]:
    """A request for a JSON record and the record."""
    sentence, record = any_person(rng, language)
    wording = rng.choice(questions("tasks", "form", language, ("web", "train", "near")))
    text = fill(wording, language, x=sentence, keys=key_list(record, language))
    return typed(rng, text, language), as_json(record, language)


def record_document(rng: random.Random, language: str) -> str:
    """Some people, each with a record, all in one style."""
    style = rng.choice((_lines, _equals, _table, as_json, as_json, as_json, _sentence_only))
    parts = []
    for _ in range(rng.randint(1, 4)):
        sentence, record = any_person(rng, language)
        parts.append(f"{sentence}\n{style(record, language)}")
    return rng.choice(("\n", "\n\n")).join(parts)


def _lines(record: Record, language: str) -> str:
    colon = ": " if language == "en" else "："
    named = localised(record, language)
    return "\n".join(f"{key.capitalize()}{colon}{value}" for key, value in named.items())


def _equals(record: Record, language: str) -> str:
    return (", " if language == "en" else "，").join(
        f"{key}={value}" for key, value in localised(record, language).items()
    )


def _table(record: Record, language: str) -> str:
    named = localised(record, language)
    head, line = " | ".join(named), " | ".join("---" for _ in named)
    return f"| {head} |\n| {line} |\n| {' | '.join(str(value) for value in named.values())} |"


def _sentence_only(record: Record, language: str) -> str:
    name = record["name"]
    asked = next(key for key in record if key != "name")
    value = localised({asked: record[asked]}, language)
    key = next(iter(value))
    if language == "zh":
        return f"{name}的{key}是什么？\n{value[key]}"
    return f"What is the {key} of {name}?\n{value[key]}"
