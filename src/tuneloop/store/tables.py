"""The tables. A room that keeps something new adds its tables here, raises VERSION and says in UPGRADES how an older
database gets them; texts that people wrote are JSON, which holds characters that PostgreSQL's text does not (NUL).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    DDL,
    BigInteger,
    CheckConstraint,
    Column,
    Connection,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    event,
)

VERSION = 1
"""Of the tables below; a database says its own in the table `store`."""
UPGRADES: Mapping[int, Callable[[Connection], None]] = {}
"""How a database of a version becomes one of the next: {1: what leads to version 2, …}. Each runs in a transaction with
the new number, once. A new database has all tables at once, so both ways must end alike: a test compares them."""


class Utc(TypeDecorator[datetime]):
    """A time with zone; UTC in the database (SQLite keeps no zone) and UTC when it is read."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value.astimezone(UTC)


METADATA = MetaData()
_Number = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up by itself for INTEGER alone

STORE = Table(
    "store", METADATA,
    Column("version", Integer, nullable=False),
    Column("created", Utc, nullable=False),
    Column("fingerprint", Text, nullable=False),  # of the secret: with another one no user and no key would be known
)  # fmt: skip

INTERACTIONS = Table(
    "interactions", METADATA,
    Column("id", Text, primary_key=True),
    Column("time", Utc, nullable=False),
    Column("user", Text, nullable=False, index=True),
    Column("model", Text, nullable=False),
    Column("version", Text),
    Column("adapter", Text),
    Column("prompt", Text, nullable=False),  # JSON: messages in the OpenAI shape
    Column("tools", Text, nullable=False),  # JSON
    Column("answer", Text, nullable=False),  # JSON: the assistant's message
    Column("finish", Text, nullable=False),
    Column("retrieval", Text),
    Column("rules", Text),
    Column("decoding", Text),
    Column("first_ms", Double),
    Column("total_ms", Double),
    Column("prompt_tokens", Integer, nullable=False),
    Column("cached_tokens", Integer, nullable=False),
    Column("completion_tokens", Integer, nullable=False),
    Column("arm", Text),
    Column("redaction", Text, nullable=False),
)  # fmt: skip
Index("interactions_by_time", INTERACTIONS.c.time, INTERACTIONS.c.id)

FEEDBACK = Table(
    "feedback", METADATA,
    Column("number", _Number, primary_key=True, autoincrement=True),  # the order of votes: the last of a user counts
    Column("answer", Text, ForeignKey("interactions.id", ondelete="CASCADE"), nullable=False),
    Column("user", Text, nullable=False, index=True),
    Column("time", Utc, nullable=False),
    Column("thumb", Integer),
    Column("stars", Integer),
    Column("said", Text, nullable=False),  # JSON: corrected, tags, comment
    Column("redaction", Text, nullable=False),
    sqlite_autoincrement=True,
)  # fmt: skip
Index("feedback_by_answer", FEEDBACK.c.answer, FEEDBACK.c.user, FEEDBACK.c.number)

KEYS = Table(
    "keys", METADATA,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("roles", Text, nullable=False),  # with spaces between
    Column("mac", Text, nullable=False),
    Column("created", Utc, nullable=False),
    Column("expires", Utc),
    Column("revoked", Utc),
    Column("used", Utc),
)  # fmt: skip

AUDIT = Table(
    "audit", METADATA,
    Column("number", _Number, primary_key=True, autoincrement=False),  # without gaps
    Column("time", Utc, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("detail", Text, nullable=False),  # JSON
    Column("mac", Text, nullable=False),
)  # fmt: skip

AUDIT_HEAD = Table(
    "audit_head", METADATA,
    Column("one", Integer, CheckConstraint("one = 1"), primary_key=True, autoincrement=False),
    Column("number", _Number, nullable=False),
    Column("mac", Text, nullable=False),  # of the last entry
    Column("seal", Text, nullable=False),  # of both: entries taken from the end are missed
)  # fmt: skip

_APPEND_ONLY = {
    "sqlite": [
        f"CREATE TRIGGER audit_no_{what} BEFORE {what} ON audit "
        "BEGIN SELECT RAISE(ABORT, 'the audit log only grows'); END"
        for what in ("update", "delete")
    ],
    "postgresql": [
        "CREATE FUNCTION audit_only_grows() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'the audit log only grows'; END $$",
        "CREATE TRIGGER audit_only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON audit "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_only_grows()",
    ],
}
for _dialect, _statements in _APPEND_ONLY.items():
    for _statement in _statements:
        event.listen(AUDIT, "after_create", DDL(_statement).execute_if(dialect=_dialect))
