"""The demo data set: everyday tasks with short answers; the test asks about words that training never has.

Run as `python -m seedling.demo FOLDER`: tickets.jsonl and answers.csv (training), val.jsonl, test.jsonl.
"""

import csv
import json
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from seedling.demo_split import Split, contains, draw_split
from seedling.tables import LANGUAGES, Fact, facts, labels
from seedling.tasks import (
    FIELD_SETS,
    all_sums,
    as_json,
    key_list,
    label_list,
    opinion,
    person,
    polarity_name,
    sum_slots,
    sum_wordings,
    topic_sentence,
)
from seedling.text import fill, questions

KINDS = ("recall", "arithmetic", "word", "classify", "form")
TOPICS = ["animal", "fruit", "vehicle", "clothing", "job", "sport"]
TRAIN_ROWS, VAL_ROWS, TEST_ROWS = 2000, 200, 460
_SEEN, _NEW = ("train",), ("near", "far")


@dataclass(frozen=True)
class Row:
    """One question with its answer; `entities` are the words and number pairs that it is about."""

    kind: str
    language: str
    question: str
    answer: str
    wording: str
    entities: tuple[str, ...]

    def messages(self) -> list[dict[str, str]]:
        """The row as a conversation."""
        return [{"role": "user", "content": self.question}, {"role": "assistant", "content": self.answer}]


class Writer:
    """Makes rows from one side of the split: "train" (also used for validation) or "test"."""

    def __init__(self, rng: random.Random, split: Split, side: str) -> None:
        self.rng, self.split, self.side = rng, split, side
        self.makers: dict[str, Callable[[str, str], Row]] = {
            "recall": self.recall,
            "arithmetic": self.arithmetic,
            "word": self.word,
            "classify": self.classify,
            "form": self.form,
        }

    def row(self, kind: str, language: str, wording: str) -> Row:
        """A row of one kind that keeps the promises of `check`."""
        while True:
            row = self.makers[kind](language, wording)
            if leaks_answer(row) or (self.side == "train" and self.split.mentions_held_out(row.question, row.answer)):
                continue
            return row

    def _wording(self, file: str, topic: str, language: str, wording: str) -> list[str]:
        if wording == "seen":
            return questions(file, topic, language, _SEEN)
        # Half of the new wordings are known from pre-training, half are new altogether.
        return questions(file, topic, language, (self.rng.choice(_NEW),))

    def _fact_row(self, kind: str, language: str, wording: str, relations: tuple[str, ...]) -> Row:
        relation = self.rng.choice(relations)
        fact = self.rng.choice([f for f in facts(language) if f.relation == relation and self._is_ours(f)])
        template = self.rng.choice(self._wording("relations", relation, language, wording))
        question = fill(template, language, **fact.slots())
        return Row(kind, language, question, fact.answer, wording, (fact.subject,))

    def _is_ours(self, fact: Fact) -> bool:
        return self.split.is_held_out(fact.subject) == (self.side == "test")

    def recall(self, language: str, wording: str) -> Row:
        """Capital, currency or continent of a country."""
        return self._fact_row("recall", language, wording, ("capital", "currency", "continent"))

    def word(self, language: str, wording: str) -> Row:
        """An opposite or a translation."""
        return self._fact_row("word", language, wording, ("opposite", "to_english", "to_chinese"))

    def arithmetic(self, language: str, wording: str) -> Row:
        """A sum."""
        operation = self.rng.choice(("add", "sub", "mul"))
        held_out = self.side == "test"
        ours = [row for row in all_sums() if row[0] == operation and self.split.is_pair_held_out(*row[1:3]) == held_out]
        _, x, y, result = self.rng.choice(ours)
        options = sum_wordings(self._wording("arithmetic", operation, language, wording), x, y, result)
        question = fill(self.rng.choice(options), language, **sum_slots(self.rng, language, x, y, result))
        return Row("arithmetic", language, question, str(result), wording, (pair_name(x, y),))

    def classify(self, language: str, wording: str) -> Row:
        """The topic of a sentence or the sentiment of a review."""
        words = self.split.vocabulary(language, self.side)
        if self.rng.random() < 0.5:
            sentence, category, noun = topic_sentence(self.rng, language, words, TOPICS)
            template = self.rng.choice(self._wording("tasks", "topic", language, wording))
            choices = label_list(self.rng, language, TOPICS)
            question = fill(template, language, x=sentence, labels=choices)
            return Row("classify", language, question, labels(language)[category], wording, (noun,))
        polarity = self.rng.choice(("positive", "negative"))
        text = opinion(self.rng, language, words, polarity)
        used = tuple(w for group in words.sentiment.values() for w in group if contains(text, w))
        template = self.rng.choice(self._wording("tasks", "sentiment", language, wording))
        return Row(
            "classify",
            language,
            fill(template, language, x=text),
            polarity_name(language, polarity),
            wording,
            used,
        )

    def form(self, language: str, wording: str) -> Row:
        """A sentence about a person as a JSON record."""
        words = self.split.vocabulary(language, self.side)
        sentence, record = person(self.rng, language, words, self.rng.choice(FIELD_SETS[language]))
        template = self.rng.choice(self._wording("tasks", "form", language, wording))
        question = fill(template, language, x=sentence, keys=key_list(record, language))
        entities = tuple(str(record[key]) for key in ("name", "city", "job") if key in record)
        return Row("form", language, question, as_json(record, language), wording, entities)


def pair_name(x: int, y: int) -> str:
    """Two operands in either order."""
    return f"{min(x, y)},{max(x, y)}"


def leaks_answer(row: Row) -> bool:
    """Whether the question gives the answer away (forms copy and labels are offered by their nature)."""
    return row.kind not in ("form", "classify") and contains(row.question, row.answer)


def make_rows(seed: int = 0) -> tuple[list[Row], list[Row], list[Row]]:
    """Training, validation and test rows; no question occurs twice."""
    rng = random.Random(seed)
    split = draw_split(rng)
    used: set[str] = set()
    train = _unique(Writer(rng, split, "train"), TRAIN_ROWS, ("seen",), used)
    val = _unique(Writer(rng, split, "train"), VAL_ROWS, ("seen",), used)
    test = _unique(Writer(rng, split, "test"), TEST_ROWS, ("seen", "new"), used)
    check(train, val, test, split)
    rng.shuffle(train)
    return train, val, test


def _unique(writer: Writer, count: int, wordings: tuple[str, ...], used: set[str]) -> list[Row]:
    cells = [(kind, language, wording) for kind in KINDS for language in LANGUAGES for wording in wordings]
    rows = []
    for number in range(count):
        row = writer.row(*cells[number % len(cells)])
        while row.question in used:
            row = writer.row(*cells[number % len(cells)])
        used.add(row.question)
        rows.append(row)
    return rows


def check(train: list[Row], val: list[Row], test: list[Row], split: Split) -> None:
    """Raise unless the test rows share no entity, no question and (if "new") no wording with the rest."""
    known_questions = {row.question for row in train + val}
    for row in train + val:
        assert not split.mentions_held_out(row.question, row.answer), row
        assert row.wording == "seen", row
    known_pairs = {entity for row in train + val if row.kind == "arithmetic" for entity in row.entities}
    known = " \n".join(sorted(known_questions))
    for row in test:
        assert row.question not in known_questions, row
        assert not leaks_answer(row), row
        assert row.entities, row
        for entity in row.entities:
            if row.kind == "arithmetic":
                assert entity not in known_pairs, row
            else:
                assert split.is_held_out(entity) and not contains(known, entity), (entity, row)
    for language in LANGUAGES:
        for file, topic in _TOPIC_FILES:
            seen = set(questions(file, topic, language, _SEEN))
            assert seen and not seen & set(questions(file, topic, language, ("web", *_NEW))), (
                topic,
                language,
            )


_TOPIC_FILES = (
    *(("relations", topic) for topic in ("capital", "currency", "continent", "opposite", "to_english", "to_chinese")),
    *(("arithmetic", topic) for topic in ("add", "sub", "mul")),
    *(("tasks", topic) for topic in ("topic", "sentiment", "form")),
)


def with_flaws(rng: random.Random, rows: list[Row]) -> list[Row]:
    """The rows with what real files have: exact duplicates, empty answers, an answer that never ends."""
    duplicates = rng.sample(rows, 15)
    empty = [Row(r.kind, r.language, r.question, "", r.wording, r.entities) for r in rng.sample(rows, 10)]
    rambling = [
        Row(r.kind, r.language, r.question, _ramble(rng, r), r.wording, r.entities) for r in rng.sample(rows, 5)
    ]
    flawed = rows + duplicates + empty + rambling
    rng.shuffle(flawed)
    return flawed


def _ramble(rng: random.Random, row: Row) -> str:
    if row.language == "zh":
        parts = ("这个问题我也不太清楚，", "让我再想一想，", "也许以后再回答，", "说来话长，", "总之，")
    else:
        parts = (
            "Well, let me think about it. ",
            "I am not sure, ",
            "it depends, ",
            "as I said before, ",
            "anyway, ",
        )
    return "".join(rng.choice(parts) for _ in range(400))


def write(folder: Path, seed: int = 0) -> None:
    """Write the files; half of the training rows go into each format."""
    train, val, test = make_rows(seed)
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    half = len(train) // 2
    _write_jsonl(folder / "tickets.jsonl", with_flaws(rng, train[:half]))
    with (folder / "answers.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("question", "answer", "kind", "language"))
        for row in with_flaws(rng, train[half:]):
            table.writerow((row.question, row.answer, row.kind, row.language))
    _write_jsonl(folder / "val.jsonl", val)
    _write_jsonl(folder / "test.jsonl", test, with_wording=True)


def _write_jsonl(path: Path, rows: list[Row], with_wording: bool = False) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            entry: dict[str, object] = {
                "messages": row.messages(),
                "kind": row.kind,
                "language": row.language,
            }
            if with_wording:
                entry["wording"] = row.wording
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
