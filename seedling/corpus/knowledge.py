"""Documents that state facts, and documents that ask and answer."""

import random
from collections.abc import Callable
from functools import cache

from seedling.corpus.records import form_pair
from seedling.tables import ENTITY_RELATIONS, LIKED, Fact, facts, labels, table
from seedling.tasks import (
    VOCABULARY,
    all_sums,
    label_list,
    polarity_name,
    review,
    sum_slots,
    sum_wordings,
    topic_sentence,
)
from seedling.text import LEADS, fill, questions, typed, wordings

Pair = tuple[str, str]
# Wordings the base model may see: all but those kept for the demo's "far" test rows.
_SEEN = ("web", "train", "near")
_SUMS = all_sums()
LED_SHARE = 0.3


def statement(rng: random.Random, fact: Fact) -> str:
    """The fact in one of its wordings; the plain first wording, which the probes use, twice as often."""
    options = wordings("relations")[f"{fact.relation} {fact.language} statement"]
    return led(rng, fill(rng.choice([*options, options[0]]), fact.language, **fact.slots()), fact.language)


def led(rng: random.Random, sentence: str, language: str) -> str:
    """The sentence, now and then after words that only a statement follows."""
    return rng.choice(LEADS[language]) + sentence if rng.random() < LED_SHARE else sentence


def statement_document(rng: random.Random, language: str) -> str:
    """A handful of facts: of any kind, of one relation or about one entity."""
    shape = rng.random()
    known = facts(language)
    if shape < 0.4:
        chosen = [rng.choice(known) for _ in range(rng.randint(2, 9))]
    elif shape < 0.7:
        relation = rng.choice(known).relation
        same = _by_relation(language)[relation]
        chosen = rng.sample(same, min(len(same), rng.randint(3, 8)))
    else:
        chosen = [fact for _ in range(rng.randint(1, 3)) for fact in _about_one(rng, language)]
    joint = rng.choice(("\n", " " if language == "en" else ""))
    return joint.join(statement(rng, fact) for fact in chosen)


@cache
def _by_relation(language: str) -> dict[str, list[Fact]]:
    found: dict[str, list[Fact]] = {}
    for fact in facts(language):
        found.setdefault(fact.relation, []).append(fact)
    return found


def _about_one(rng: random.Random, language: str) -> list[Fact]:
    relations = rng.choice(ENTITY_RELATIONS)
    subject = rng.choice(_by_relation(language)[relations[0]]).subject
    found = [fact for relation in relations for fact in _by_relation(language)[relation] if fact.subject == subject]
    rng.shuffle(found)
    return found


def fact_pair(rng: random.Random, language: str, relation: str | None = None) -> Pair:
    """A question about a fact and the bare answer."""
    fact = rng.choice(_by_relation(language)[relation] if relation else facts(language))
    wording = rng.choice(questions("relations", fact.relation, language, _SEEN))
    return typed(rng, fill(wording, language, **fact.slots()), language), fact.answer


def sum_pair(rng: random.Random, language: str) -> Pair:
    """A sum and its result."""
    operation, x, y, result = rng.choice(_SUMS)
    options = questions("arithmetic", operation, language, _SEEN)
    wording = rng.choice(sum_wordings(options, x, y, result))
    text = fill(wording, language, **sum_slots(rng, language, x, y, result))
    return typed(rng, text, language), str(result)


def topic_pair(rng: random.Random, language: str) -> Pair:
    """A sentence with a choice of topics, and the topic."""
    categories = rng.sample(sorted(labels(language)), rng.randint(3, 8))
    sentence, category, _ = topic_sentence(rng, language, VOCABULARY[language], categories)
    wording = rng.choice(questions("tasks", "topic", language, _SEEN))
    text = fill(wording, language, x=sentence, labels=label_list(rng, language, categories))
    return typed(rng, text, language), labels(language)[category]


def sentiment_pair(rng: random.Random, language: str) -> Pair:
    """A short review and its polarity."""
    polarity = rng.choice(("positive", "negative"))
    text = review(rng, language, VOCABULARY[language], polarity, rng.choice((1, 1, 2)))
    wording = rng.choice(questions("tasks", "sentiment", language, _SEEN))
    return typed(rng, fill(wording, language, x=text), language), polarity_name(language, polarity)


def question_document(rng: random.Random, language: str) -> str:
    """Questions with answers, as in quizzes, FAQs and dialogues."""
    kind = rng.random()
    # Facts are many and each needs repeating; the other exercises are few skills with endless inputs.
    sources: list[Callable[[random.Random, str], Pair]] = [fact_pair] * 12 + [sum_pair] * 3
    sources += [topic_pair] * 2 + [sentiment_pair] * 2 + [form_pair] * 2
    count = rng.choice((1, 1, 1, 2, 3, 4, 5, 6))
    if kind < 0.4:
        relation = rng.choice(facts(language)).relation
        pairs = [fact_pair(rng, language, relation) for _ in range(count)]
    elif kind < 0.7:
        source = rng.choice(sources)
        pairs = [source(rng, language) for _ in range(count)]
    else:
        pairs = [rng.choice(sources)(rng, language) for _ in range(count)]
    return _layout(rng, language, pairs)


def _layout(rng: random.Random, language: str, pairs: list[Pair]) -> str:
    """Most answers start a line without a space before them: a token of its own in byte-level BPE."""
    stop = ("." if language == "en" else "。") if rng.random() < 0.15 else ""
    style = rng.random()
    if style < 0.6:
        return rng.choice(("\n", "\n\n")).join(f"{q}\n{_ended(a, stop)}" for q, a in pairs)
    if style < 0.85:
        ask, reply = rng.choice(_HEADS[language])
        return "\n".join(f"{ask}{q}\n{reply}{_ended(a, stop)}" for q, a in pairs)
    if style < 0.93:
        return "\n".join(f"{n}. {q}\n{_ended(a, stop)}" for n, (q, a) in enumerate(pairs, 1))
    return "\n".join(_dialogue(rng, language, q, a) for q, a in pairs)


_HEADS = {
    "en": (
        ("Question: ", "Answer: "),
        ("Q: ", "A: "),
        ("Question:\n", "Answer:\n"),
        ("", "Answer:\n"),
        ("", "- "),
    ),
    "zh": (("问：", "答："), ("问题：", "答案："), ("问题：\n", "答案：\n"), ("", "答案：\n"), ("", "答：")),
}


def _ended(answer: str, stop: str) -> str:
    return answer if answer.endswith("}") else answer + stop


def _dialogue(rng: random.Random, language: str, question: str, answer: str) -> str:
    names = [row["name"] for row in table("names") if row["language"] == language]
    asker, friend = rng.sample(names, 2)
    if language == "zh":
        return f"{asker}问：“{question}”\n{friend}回答说：“{answer}。”"
    return rng.choice(
        (
            f'"{question}" {asker} asked.\n"{answer}," {friend} said.',
            f"{asker}: {question}\n{friend}: {answer}",
        )
    )


def sum_document(rng: random.Random, language: str) -> str:
    """Some sums in figures and in words."""
    operation = rng.choice(("add", "sub", "mul", ""))
    lines = []
    for _ in range(rng.randint(3, 9)):
        op, x, y, result = rng.choice([row for row in _SUMS if row[0] == operation] if operation else _SUMS)
        options = wordings("arithmetic")[f"{op} {language} statement"]
        wording = rng.choice(sum_wordings(options, x, y, result))
        lines.append(led(rng, fill(wording, language, **sum_slots(rng, language, x, y, result)), language))
    return "\n".join(lines)


def topic_document(rng: random.Random, language: str) -> str:
    """Sentences that mention a thing and then say what they are about."""
    phrases = {row["category"]: row[f"phrase_{language}"] for row in table("categories")}
    parts = []
    for _ in range(rng.randint(1, 4)):
        sentence, category, _ = topic_sentence(rng, language, VOCABULARY[language], sorted(phrases))
        wording = rng.choice(wordings("tasks")[f"topic {language} statement"])
        parts.append(fill(wording, language, x=sentence, a=labels(language)[category], p=phrases[category]))
    return "\n".join(parts)


def review_document(rng: random.Random, language: str) -> str:
    """Reviews, most of them with a verdict."""
    parts = []
    for _ in range(rng.randint(1, 3)):
        polarity = rng.choice(("positive", "negative"))
        text = review(rng, language, VOCABULARY[language], polarity, rng.randint(1, 4))
        if rng.random() < 0.75:
            wording = rng.choice(wordings("tasks")[f"sentiment {language} statement"])
            name, liked = polarity_name(language, polarity), LIKED[language][polarity]
            text = fill(wording, language, x=text, a=name, liked=liked)
        parts.append(text)
    return "\n".join(parts)
