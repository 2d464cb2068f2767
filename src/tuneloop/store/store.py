"""The store as others use it: a plain synchronous interface for any number of threads and processes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import Connection, Engine

from tuneloop.core.conversation import JsonObject
from tuneloop.store import answers, audit, export
from tuneloop.store.access import WRITES, forget, reading, shown
from tuneloop.store.audit import Broken, Entry
from tuneloop.store.copying import copy
from tuneloop.store.database import connect
from tuneloop.store.keys import Keys
from tuneloop.store.records import Deleted, Feedback, Interaction, Stats, check_time, check_user
from tuneloop.store.redaction import Redaction
from tuneloop.store.seal import Seal
from tuneloop.store.writer import Writer

_DELETED_AT_ONCE = 1_000  # so that others write in between


def open(
    url: str,
    secret: bytes,
    redaction: Redaction | None = Redaction(),  # noqa: B008 it is frozen
    patience: float | None = None,
) -> Store:
    """The store of a URL (`sqlite:///folder/store.db`, `postgresql://user@host/name`), made where there is none.

    secret: at least 32 bytes, always the same for the same store; `seal.load(path)` keeps one in a file.
    redaction: what is masked before anything is written; None masks nothing. patience: seconds after which a database
    that does not answer is given up for this time, so that nobody hangs with it; None waits, as exports and deletions
    of much may need. Raises StoreError, MissingExtra.
    """
    seal = Seal(secret)
    return Store(connect(url, seal, patience), seal, redaction)


class Store:
    """Answers, votes, keys and the audit log of one database; `open` makes it. A context manager that closes it."""

    def __init__(self, engine: Engine, seal: Seal, redaction: Redaction | None) -> None:
        self._engine, self._seal, self._redaction = engine, seal, redaction
        ready = redaction.interaction if redaction is not None else _as_it_is
        self._writer = Writer(engine.execution_options(**WRITES), ready, answers.record, answers.is_there)
        self.keys = Keys(engine, seal, self._writer)

    def __repr__(self) -> str:
        return f"Store({shown(self._engine.url)})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()

    # -- ids and users ------------------------------------------------------------------------------------------------
    def pseudonym(self, user: str) -> str:
        """The keyed hash by which the store knows a user."""
        return self._seal.pseudonym(user)

    def sign(self, answer: str) -> str:
        """An answer's id for its client: `check` takes no other."""
        return self._seal.sign(answer)

    def check(self, signed: str) -> str | None:
        """The answer's id; None for a forged one or one of another server."""
        return self._seal.check(signed)

    def sign_session(self, session: str) -> str:
        """What a browser holds to prove its session."""
        return self._seal.sign(session, "session")

    def check_session(self, signed: str) -> str | None:
        """What `sign_session` was given; None for a forged one or one of another server."""
        return self._seal.check(signed, "session")

    # -- answers and votes --------------------------------------------------------------------------------------------
    def record(self, one: Interaction) -> None:
        """Queues an answer, which is written within some 50 ms. Waits only when far too much is queued.

        Raises StoreError when the database has taken nothing for long.
        """
        said = sum(len(message.content) for message in one.prompt)
        self._writer.put(one, said + len(one.answer))

    def feedback(self, one: Feedback) -> None:
        """Writes a vote; committed, on the disk, when it returns. It belongs to the version that answered.

        Raises UnknownAnswer, or StoreError when the database does not answer.
        """
        vote = one if self._redaction is None else self._redaction.feedback(one)
        self._writer.do(lambda connection: answers.vote(connection, vote))

    def answer(self, id: str) -> Interaction | None:
        """The answer of an id, one that is still queued too."""
        with reading(self._engine) as connection:
            found = answers.answer(connection, id)
        if found is None:
            self._writer.settle()
            with reading(self._engine) as connection:
                found = answers.answer(connection, id)
        return found

    def votes(self, answer: str) -> list[Feedback]:
        """All votes on an answer in their order; of each user the last one counts (`answers.counting`)."""
        with reading(self._engine) as connection:
            return answers.votes(connection, [answer])

    def stats(self) -> Stats:
        """How much there is."""
        with reading(self._engine) as connection:
            count, users, oldest, newest, votes = answers.count_all(connection)
            entries = audit.count(connection)
        return Stats(count, users, votes, len(self.keys.list()), entries, oldest, newest)

    def older(self, before: datetime) -> int:
        """How many answers `expire` would delete."""
        with reading(self._engine) as connection:
            return answers.count_before(connection, before)

    def of_user(self, user: str) -> tuple[int, int]:
        """How many answers and votes `delete_user` would delete."""
        check_user(user)
        with reading(self._engine) as connection:
            return answers.count_user(connection, user)

    @property
    def trouble(self) -> str:
        """Why nothing can be written just now; empty while it can. It is tried again and again."""
        return self._writer.trouble

    @property
    def waiting(self) -> int:
        """How much is queued and not yet being written."""
        return self._writer.waiting

    @property
    def refused(self) -> int:
        """How many answers were dropped since it was opened: the database takes others, but not these."""
        return self._writer.refused

    def flush(self) -> None:
        """Returns when all that was recorded is committed. Raises StoreError for answers that the database refused."""
        self._writer.flush()

    def close(self) -> None:
        """Writes what is queued and lets the database go. Raises StoreError when something could not be written."""
        if not self._writer.closed:
            self.keys.write_uses()
        try:
            self._writer.close()
        finally:
            self._engine.dispose()

    # -- what becomes of them -----------------------------------------------------------------------------------------
    def export(
        self, path: Path, since: datetime | None = None, before: datetime | None = None, actor: str = "operator"
    ) -> int:
        """Writes answers with the votes that count as JSONL for `tuneloop prepare`; returns how many.

        Memory does not grow with their number. What is recorded meanwhile may be in it or not.
        """
        self.flush()
        self.audit(actor, "export", {"since": since and since.isoformat(), "before": before and before.isoformat()})
        return export.write(self._engine, path, since, before)

    def expire(self, before: datetime, actor: str = "operator") -> int:
        """Deletes all answers that are older, with their votes; returns how many."""
        check_time(before)
        self.flush()

        def say(connection: Connection) -> None:
            detail: JsonObject = {"before": before.isoformat(), "answers": answers.count_before(connection, before)}
            audit.append(connection, self._seal, actor, "expire", detail)

        self._writer.do(say)  # first: stopped halfway, the log still says what was begun
        deleted = 0
        while more := self._writer.do(lambda c: answers.delete_before(c, before, _DELETED_AT_ONCE)):
            deleted += more
        forget(self._engine)
        return deleted

    def delete_user(self, user: str, actor: str = "operator") -> Deleted:
        """Deletes the answers to a user (`pseudonym`), all votes on them, and the user's votes on others' answers."""
        check_user(user)

        def write(connection: Connection) -> Deleted:
            gone = answers.delete_user(connection, user)
            detail: JsonObject = {"user": user, "answers": len(gone.answers), "votes": gone.votes}
            audit.append(connection, self._seal, actor, "delete user", detail)
            return gone

        deleted = self._writer.do(write)
        forget(self._engine)
        return deleted

    def copy_to(self, url: str) -> int:
        """Copies everything into the empty store of another URL, made with the same secret; returns how many rows.

        Stop what writes into this one first. Raises StoreError.
        """
        self.flush()
        target = connect(url, self._seal)
        try:
            return copy(self._engine, target)
        finally:
            target.dispose()

    # -- the audit log ------------------------------------------------------------------------------------------------
    def audit(self, actor: str, action: str, detail: JsonObject | None = None) -> Entry:
        """Adds an entry to the log, committed when it returns. Put no secrets and no private data into it: it stays."""
        return self._writer.do(lambda c: audit.append(c, self._seal, actor, action, detail or {}))

    def audit_log(self, after: int = 0) -> Iterator[Entry]:
        """The entries behind a number, in order."""
        return audit.entries(self._engine, after)

    def verify_audit(self) -> Broken | None:
        """The first entry that is not as it was written or is missing, the last ones too; None where all is well."""
        return audit.verify(self._engine, self._seal)


def _as_it_is(one: Interaction) -> Interaction:
    return one
