"""Small connected stories with a person, a place, things, weather and feelings."""

import random
import re

from seedling.tables import table
from seedling.text import fill, wordings

_PRONOUNS = {
    ("en", "m"): {"he": "he", "his": "his", "him": "him", "He": "He", "His": "His"},
    ("en", "f"): {"he": "she", "his": "her", "him": "her", "He": "She", "His": "Her"},
    ("zh", "m"): {"he": "他"},
    ("zh", "f"): {"he": "她"},
}
# Said once and then meant again, so the whole story keeps one of each.
_LASTING = ("place", "object", "family", "role")


def story(rng: random.Random, language: str) -> str:
    """Three to eight sentences, in the order of a plot."""
    people = [row for row in table("names") if row["language"] == language]
    hero, friend = rng.sample(people, 2)
    slots = wordings("stories")
    fixed = {"name": hero["name"], "friend": friend["name"], **_PRONOUNS[language, hero["gender"]]}
    fixed |= {slot: _one(rng, slot, language) for slot in _LASTING}
    sentences = []
    for stage in range(1, 7):
        if stage in (2, 4, 5) and rng.random() < 0.25:
            continue
        for template in rng.sample(slots[f"stage{stage} {language}"], 1 if stage == 1 else rng.choice((1, 1, 1, 2))):
            values = {
                name: _one(rng, name, language) for name in re.findall(r"\{(\w+)\}", template) if name not in fixed
            }
            sentences.append(fill(template, language, **fixed, **values))
    return (" " if language == "en" else "").join(sentences)


def _one(rng: random.Random, slot: str, language: str) -> str:
    return rng.choice(wordings("stories")[f"{slot} {language}"][0].split("|"))


def saying_document(rng: random.Random, language: str) -> str:
    """Everyday sentences, proverbs and poems, for words that no table has."""
    lines = wordings("sayings")[language]
    return "\n".join(rng.sample(lines, rng.randint(2, 6)))
