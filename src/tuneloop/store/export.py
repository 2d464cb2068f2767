"""Answers with their votes as a file of Examples, which `tuneloop prepare` reads (format `messages`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from tuneloop.core import jsonl
from tuneloop.core.conversation import Example, JsonObject, Message, Origin
from tuneloop.store import answers
from tuneloop.store.access import reading
from tuneloop.store.records import Feedback, Interaction

_PAGE = 500


def write(engine: Engine, path: Path, since: datetime | None, before: datetime | None) -> int:
    """Writes all answers of a time, the oldest first; returns how many. The owner alone may read the file."""
    return jsonl.write_lines(path, _lines(engine, since, before), permissions=0o600)


def example_of(one: Interaction, votes: Sequence[Feedback], row: int) -> Example:
    """An answer as an Example: only its own message is to be learnt, all else that is known of it stands in meta."""
    asked = tuple(replace(message, train=0.0) if message.weight else message for message in one.prompt)
    said = Message("assistant", one.answer, tool_calls=one.calls)
    facts = {
        "answer": one.id, "time": one.time.isoformat(), "user": one.user, "model": one.model, "version": one.version,
        "adapter": one.adapter, "finish": one.finish, "retrieval": one.retrieval, "rules": one.rules,
        "decoding": one.decoding, "first_ms": one.first_ms, "total_ms": one.total_ms,
        "prompt_tokens": one.prompt_tokens, "cached_tokens": one.cached_tokens,
        "completion_tokens": one.completion_tokens, "arm": one.arm, "redaction": one.redaction,
        "feedback": [_vote_of(vote) for vote in votes] or None,
    }  # fmt: skip
    return Example((*asked, said), Origin("store", row), one.tools, _given(facts))


def _lines(engine: Engine, since: datetime | None, before: datetime | None) -> Iterator[JsonObject]:
    """A page at a time: no transaction is open while the file is written, and little is in memory."""
    after, row = None, 0
    while True:
        with reading(engine) as connection:
            page = answers.page(connection, since, before, after, _PAGE)
            votes = answers.counting(answers.votes(connection, [one.id for one in page]))
        of_answer: dict[str, list[Feedback]] = {}
        for vote in votes:
            of_answer.setdefault(vote.answer, []).append(vote)
        for one in page:
            yield example_of(one, of_answer.get(one.id, ()), row).to_json()
            row += 1
        if len(page) < _PAGE:
            return
        after = (page[-1].time, page[-1].id)


def _vote_of(vote: Feedback) -> JsonObject:
    return _given({
        "user": vote.user, "time": vote.time.isoformat(), "thumb": vote.thumb, "stars": vote.stars,
        "corrected": vote.corrected, "tags": list(vote.tags) or None, "comment": vote.comment,
    })  # fmt: skip


def _given(facts: dict[str, Any]) -> JsonObject:
    return {name: value for name, value in facts.items() if value is not None}
