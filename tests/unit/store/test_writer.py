"""The writer: one commit for many, back-pressure instead of loss, and a database that comes back."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import event, text

from tests.unit.store.conftest import SECRET
from tuneloop.core.conversation import Message
from tuneloop.core.errors import StoreError
from tuneloop.store import store, writer
from tuneloop.store.access import WRITES
from tuneloop.store.records import Feedback, Interaction
from tuneloop.store.store import Store

NOW = datetime.now(UTC)
Asked = Callable[..., Interaction]


def test_many_answers_share_a_commit(opened: Store, asked: Asked) -> None:
    commits: list[int] = []
    event.listen(opened._engine, "commit", lambda _: commits.append(1))
    for _ in range(500):
        asked()
    opened.flush()
    assert len(commits) < 50


def test_records_from_many_threads_all_arrive(opened: Store, asked: Asked) -> None:
    made: list[Interaction] = []
    threads = [threading.Thread(target=lambda n=n: made.extend(asked(f"user{n}") for _ in range(50))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    opened.flush()
    assert len(made) == 400
    assert all(opened.answer(one.id) == one for one in made)


@pytest.fixture
def small_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for six answers of 3,000 characters."""
    monkeypatch.setattr(writer, "_ROOM", 20_000)


def test_what_does_not_fit_waits_and_nothing_is_lost(opened: Store, asked: Asked, small_room: None) -> None:
    sizes: list[int] = []

    def ask() -> None:
        for _ in range(60):
            asked(answer="x" * 3_000)
            sizes.append(opened.waiting)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    opened.flush()
    assert max(sizes) <= 20_000 // 3_000
    with opened._engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM interactions")).scalar_one() == 240


def test_one_that_is_larger_than_all_room_is_taken(
    opened: Store, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_ROOM", 100)
    one = asked(answer="x" * 50_000)
    assert opened.answer(one.id) == one


@pytest.fixture
def locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Store, sqlite3.Connection]:
    """A store on SQLite whose database another process, so to say, holds."""
    monkeypatch.setattr("tuneloop.store.database._BUSY_MS", 10)
    made = store.open(f"sqlite:///{tmp_path}/store.db", SECRET, None)
    other = sqlite3.connect(tmp_path / "store.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    return made, other


def answer_of(made: Store, id: str = "a1") -> Interaction:
    return Interaction(id, NOW, made.pseudonym("alice"), "desk", (Message("user", "SECRET question"),), "x", "stop")


def test_a_locked_database_is_waited_for(
    locked: tuple[Store, sqlite3.Connection], caplog: pytest.LogCaptureFixture
) -> None:
    made, other = locked
    with made:
        one = answer_of(made)
        made.record(one)
        with caplog.at_level(logging.WARNING):
            timer = threading.Timer(0.5, other.execute, ["ROLLBACK"])
            timer.start()
            made.feedback(Feedback(one.id, one.user, NOW, thumb=1))
        assert len(made.votes(one.id)) == 1
        assert caplog.text.count("cannot write") == 1
        assert "SECRET" not in caplog.text
    other.close()


def test_who_waits_too_long_is_told_and_closing_says_what_was_lost(
    locked: tuple[Store, sqlite3.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, other = locked
    monkeypatch.setattr(writer, "PATIENCE", 0.3)
    monkeypatch.setattr(writer, "_ROOM", 3_000)
    made.record(answer_of(made))
    with pytest.raises(StoreError, match=r"did not take a change within .*: database is locked"):
        made.audit("a", "b")
    with pytest.raises(StoreError, match="takes no more: database is locked"):
        for number in range(3):
            made.record(answer_of(made, f"b{number}"))
    with pytest.raises(StoreError, match="could not be recorded: 2; the first: database is locked"):
        made.close()
    other.execute("ROLLBACK")
    other.close()


def test_a_change_that_was_given_up_is_not_made_later(
    locked: tuple[Store, sqlite3.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, other = locked
    with made:
        monkeypatch.setattr(writer, "PATIENCE", 0.2)
        with pytest.raises(StoreError, match="did not take"):
            made.audit("a", "given up")
        monkeypatch.undo()
        other.execute("ROLLBACK")
        made.flush()
        assert list(made.audit_log()) == []
    other.close()


def test_a_server_that_is_started_again_loses_nothing(postgres: str, caplog: pytest.LogCaptureFixture) -> None:
    """All connections are cut in the middle: what was being written is written again."""
    from tests.unit.store.conftest import new_database

    with store.open(new_database(postgres), SECRET, None) as made:
        ids = [f"a{number}" for number in range(300)]
        cut = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )
        for number, id in enumerate(ids):
            made.record(answer_of(made, id))
            if number % 60 == 30:
                made.audit("a", str(number))
                with made._engine.connect() as connection:
                    connection.execute(text(cut))
        made.flush()
        with made._engine.connect() as connection:
            assert connection.execute(text("SELECT count(*) FROM interactions")).scalar_one() == len(ids)
        assert made.verify_audit() is None


def test_errors_tell_nothing_that_is_private(opened: Store, url: str) -> None:
    """Not even the error behind the error, which a log would show."""
    actor = "SECRET\x00" if url.startswith("postgresql") else "SECRET\ud800"  # what the database, the driver refuses
    with pytest.raises((StoreError, UnicodeEncodeError)) as raised:
        opened.audit(actor, "b")
    assert "SECRET" not in str(raised.value) + str(raised.value.__cause__)


def test_a_database_that_is_gone_is_told(opened: Store, url: str) -> None:
    with opened._engine.execution_options(**WRITES).begin() as connection:
        connection.execute(text("DROP TABLE feedback"))
    with pytest.raises(StoreError, match="cannot be read"):
        opened.votes("x")


def test_a_closed_store_takes_nothing(opened: Store, asked: Asked) -> None:
    one = asked()
    opened.close()
    opened.close()
    with pytest.raises(StoreError, match="closed"):
        opened.record(one)
    with pytest.raises(StoreError, match="closed"):
        opened.audit("a", "b")


def test_closing_writes_what_is_queued(url: str) -> None:
    with store.open(url, SECRET, None) as made:
        one = answer_of(made)
        made.record(one)
    with store.open(url, SECRET, None) as again:
        assert again.answer(one.id) == one


def test_a_fork_is_told_to_open_its_own(opened: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)
    with pytest.raises(StoreError, match="open it again in each process"):
        opened.audit("a", "b")
