"""Answers and votes in their tables: written, read, deleted. Each function works in the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, func, insert, or_, select
from sqlalchemy.exc import IntegrityError

from tuneloop.core import jsonl
from tuneloop.core.conversation import Message
from tuneloop.store.records import Deleted, Feedback, Interaction, UnknownAnswer
from tuneloop.store.tables import FEEDBACK, INTERACTIONS

_AS_THEY_ARE = (
    "id", "time", "user", "model", "version", "adapter", "finish", "retrieval", "rules", "decoding", "first_ms",
    "total_ms", "prompt_tokens", "cached_tokens", "completion_tokens", "arm", "redaction",
)  # fmt: skip
Place = tuple[datetime, str]
"""Time and id of an answer: where a page ends."""


def record(connection: Connection, answers: Sequence[Interaction]) -> None:
    """Writes answers."""
    connection.execute(insert(INTERACTIONS), [_row_of(one) for one in answers])


def answer(connection: Connection, id: str) -> Interaction | None:
    """The answer of an id."""
    row = connection.execute(select(INTERACTIONS).where(INTERACTIONS.c.id == id)).one_or_none()
    return None if row is None else _interaction_of(row)


def is_there(connection: Connection, one: Interaction) -> bool:
    """Whether just this answer is written already."""
    return answer(connection, one.id) == one


def vote(connection: Connection, one: Feedback) -> None:
    """Writes a vote; earlier ones stay. Raises UnknownAnswer."""
    said = {"corrected": one.corrected, "tags": one.tags, "comment": one.comment}
    row = {"answer": one.answer, "user": one.user, "time": one.time, "thumb": one.thumb, "stars": one.stars}
    try:
        connection.execute(insert(FEEDBACK), {**row, "said": _text(said), "redaction": one.redaction})
    except IntegrityError as error:
        raise UnknownAnswer(f"no answer {one.answer}: it was deleted, has expired, or was never recorded") from error


def votes(connection: Connection, ids: Sequence[str]) -> list[Feedback]:
    """All votes on some answers, those that were replaced too, in the order in which they came."""
    found = connection.execute(select(FEEDBACK).where(FEEDBACK.c.answer.in_(ids)).order_by(FEEDBACK.c.number))
    return [_feedback_of(row) for row in found]


def counting(given: Sequence[Feedback]) -> list[Feedback]:
    """Of votes in their order, the last one of each user on each answer."""
    return list({(one.answer, one.user): one for one in given}.values())


def page(
    connection: Connection, since: datetime | None, before: datetime | None, after: Place | None, most: int
) -> list[Interaction]:
    """Answers of a time in order of time, from behind a place on."""
    time, id = INTERACTIONS.c.time, INTERACTIONS.c.id
    query = select(INTERACTIONS).order_by(time, id).limit(most)
    if since is not None:
        query = query.where(time >= since)
    if before is not None:
        query = query.where(time < before)
    if after is not None:
        query = query.where(time >= after[0], or_(time > after[0], id > after[1]))
    return [_interaction_of(row) for row in connection.execute(query)]


def count_before(connection: Connection, before: datetime) -> int:
    """How many answers are older than a time."""
    return connection.execute(select(func.count()).where(INTERACTIONS.c.time < before)).scalar_one()


def count_user(connection: Connection, user: str) -> tuple[int, int]:
    """How many answers and votes `delete_user` would delete."""
    theirs = connection.execute(select(func.count()).where(INTERACTIONS.c.user == user)).scalar_one()
    return theirs, connection.execute(select(func.count()).where(_votes_of(user))).scalar_one()


def count_all(connection: Connection) -> tuple[int, int, datetime | None, datetime | None, int]:
    """How many answers and users there are, the first and the last time of an answer, and how many votes."""
    time, user = INTERACTIONS.c.time, INTERACTIONS.c.user
    found = connection.execute(select(func.count(), func.count(user.distinct()), func.min(time), func.max(time))).one()
    votes = connection.execute(select(func.count()).select_from(FEEDBACK)).scalar_one()
    return found[0], found[1], found[2], found[3], votes


def delete_before(connection: Connection, before: datetime, most: int) -> int:
    """Deletes some of the answers that are older than a time, with their votes; returns how many."""
    old = select(INTERACTIONS.c.id).where(INTERACTIONS.c.time < before).order_by(INTERACTIONS.c.time).limit(most)
    return connection.execute(delete(INTERACTIONS).where(INTERACTIONS.c.id.in_(old))).rowcount


def delete_user(connection: Connection, user: str) -> Deleted:
    """Deletes the answers to a user with all votes on them, and the user's votes on others' answers."""
    given = connection.execute(delete(FEEDBACK).where(_votes_of(user))).rowcount
    ids = connection.execute(delete(INTERACTIONS).where(INTERACTIONS.c.user == user).returning(INTERACTIONS.c.id))
    return Deleted(tuple(sorted(ids.scalars())), given)


def _votes_of(user: str) -> ColumnElement[bool]:
    """All votes on the answers to a user, and the user's votes on others' answers."""
    theirs = select(INTERACTIONS.c.id).where(INTERACTIONS.c.user == user)
    return or_(FEEDBACK.c.user == user, FEEDBACK.c.answer.in_(theirs))


def _row_of(one: Interaction) -> dict[str, Any]:
    row = {name: getattr(one, name) for name in _AS_THEY_ARE}
    row["prompt"] = _text([message.to_json() for message in one.prompt])
    row["tools"] = _text(one.tools)
    row["answer"] = _text(Message("assistant", one.answer, tool_calls=one.calls).to_json())
    return row


def _interaction_of(row: Row[Any]) -> Interaction:
    said = Message.from_json(jsonl.parse(row.answer))
    return Interaction(
        **{name: getattr(row, name) for name in _AS_THEY_ARE},
        prompt=tuple(Message.from_json(message) for message in jsonl.parse(row.prompt)),
        tools=tuple(jsonl.parse(row.tools)),
        answer=said.content,
        calls=said.tool_calls,
    )


def _feedback_of(row: Row[Any]) -> Feedback:
    said = jsonl.parse(row.said)
    return Feedback(
        row.answer, row.user, row.time, row.thumb, row.stars, said["corrected"], tuple(said["tags"]), said["comment"],
        row.redaction,
    )  # fmt: skip


def _text(value: Any) -> str:
    """JSON, in which NUL is written as an escape: PostgreSQL's text takes it, and nothing is changed."""
    return jsonl.dump(value).decode()
