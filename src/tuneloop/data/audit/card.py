"""Puts the card together: the ledger, a section for each question, and all findings."""

from __future__ import annotations

from tuneloop.core.conversation import JsonObject
from tuneloop.data.audit import ledger
from tuneloop.data.audit.conflicts import Conflicts
from tuneloop.data.audit.contamination import Contamination
from tuneloop.data.audit.conversations import Conversations
from tuneloop.data.audit.diversity import Diversity
from tuneloop.data.audit.duplicates import Duplicates
from tuneloop.data.audit.labels import Labels
from tuneloop.data.audit.languages import Languages
from tuneloop.data.audit.lengths import Lengths
from tuneloop.data.audit.meaning import Meaning
from tuneloop.data.audit.pii import Pii
from tuneloop.data.audit.positions import Positions
from tuneloop.data.audit.question import Question
from tuneloop.data.audit.reading import Reading
from tuneloop.data.audit.tasks import Tasks
from tuneloop.data.audit.tokens import Tokens
from tuneloop.data.facts import Facts
from tuneloop.data.findings import LEVELS, finding

QUESTIONS: tuple[Question, ...] = (
    ledger.Ledger(), Duplicates(), Labels(), Languages(), Lengths(), Tokens(), Diversity(), Meaning(), Tasks(),
    Positions(), Conversations(), Conflicts(), Pii(), Contamination(),
)  # fmt: skip
"""In the order of the pages."""


def card(facts: Facts) -> JsonObject:
    """card.json. That the counts of the ledger add up is asserted."""
    data = Reading(facts)
    made: JsonObject = {
        "version": 1,
        "rows": ledger.rows(facts),
        "splits": ledger.splits(facts, data.splits),
        "findings": [],
        "sources": ledger.sources(facts),
        "not_checked": {},
    }
    found = list(facts.findings)
    for question in QUESTIONS:
        measured = question.measure(data)
        if measured is None:
            made["not_checked"][question.name] = question.unchecked
        else:
            made[question.name] = measured
    for question in QUESTIONS:
        section = question.section(made)
        if section is not None:
            found += question.judge(section)
    found += _not_checked(made["not_checked"])
    made["findings"] = sorted(found, key=lambda one: LEVELS.index(one["level"]))
    return made


def _not_checked(reasons: dict[str, str]) -> list[JsonObject]:
    """What the card does not say anything about."""
    titles = {question.name: question.title for question in QUESTIONS}
    text = "; ".join(f"{titles[name].lower()} ({why})" for name, why in reasons.items())
    return [finding("INFO", "not_checked", len(reasons), f"the card says nothing of {text}")] if reasons else []
