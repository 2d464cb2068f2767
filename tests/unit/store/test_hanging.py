"""A database that hangs: it takes the connection and never answers. Whoever waits is told, and nothing is lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from tests import blackhole
from tests.blackhole import Blackhole
from tests.unit.store.conftest import SECRET, new_database
from tuneloop.core.conversation import Message
from tuneloop.core.errors import StoreError
from tuneloop.store import store, writer
from tuneloop.store.records import Interaction
from tuneloop.store.store import Store

PATIENCE = 0.5
FAR_TOO_LONG = 30.0


@pytest.fixture
def way(postgres: str) -> Iterator[Blackhole]:
    with blackhole.before_postgres(postgres) as made:
        yield made


@pytest.fixture
def through(postgres: str, way: Blackhole) -> str:
    """The URL of a new database at the other end."""
    return blackhole.through(way, new_database(postgres))


@pytest.fixture
def hanging(through: str) -> Iterator[Store]:
    """A store that gives up after half a second."""
    with store.open(through, SECRET, None, PATIENCE) as made:
        yield made


def ended(work: threading.Thread) -> bool:
    work.join(FAR_TOO_LONG)
    return not work.is_alive()


def answer_of(made: Store, id: str) -> Interaction:
    user = made.pseudonym("alice")
    return Interaction(id, datetime.now(UTC), user, "desk", (Message("user", "hello"),), "x", "stop")


def test_who_reads_is_told_and_reads_again_when_it_answers(hanging: Store, way: Blackhole) -> None:
    key = hanging.keys.create("test", ["chat"])
    told: list[str] = []

    def check() -> None:
        try:
            hanging.keys.verify(key)
        except StoreError as error:
            told.append(str(error))

    way.silence()
    threads = [threading.Thread(target=check, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert all(map(ended, threads))
    assert len(told) == 4
    way.resume()
    assert hanging.keys.verify(key) is not None


def test_records_wait_and_votes_are_refused(hanging: Store, way: Blackhole, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "HOPE", 0.5)
    hanging.record(answer_of(hanging, "a0"))
    hanging.flush()
    way.silence()
    hanging.record(answer_of(hanging, "a1"))
    told: list[str] = []

    def change() -> None:
        try:
            hanging.audit("a", "b")
        except StoreError as error:
            told.append(str(error))

    thread = threading.Thread(target=change, daemon=True)
    thread.start()
    assert ended(thread)
    assert "did not take a change" in told[0]
    assert hanging.trouble
    way.resume()
    hanging.flush()
    assert hanging.answer("a1") is not None
    assert [entry.action for entry in hanging.audit_log()] == []  # what was given up is not made later


def test_closing_ends_though_the_database_hangs(through: str, way: Blackhole, monkeypatch: pytest.MonkeyPatch) -> None:
    made = store.open(through, SECRET, None, PATIENCE)
    monkeypatch.setattr(writer, "PATIENCE", 0.5)
    way.silence()
    made.record(answer_of(made, "a1"))
    told: list[str] = []

    def close() -> None:
        try:
            made.close()
        except StoreError as error:
            told.append(str(error))

    thread = threading.Thread(target=close, daemon=True)
    thread.start()
    assert ended(thread)
    assert "could not be recorded: 1" in told[0]


def test_opening_is_refused(through: str, way: Blackhole) -> None:
    way.silence()
    with pytest.raises(StoreError, match="cannot be opened as a store"):
        store.open(through, SECRET, None, PATIENCE)


def test_the_server_gives_up_what_nobody_waits_for(hanging: Store) -> None:
    with hanging._engine.connect() as connection:
        found = [connection.execute(text(f"SHOW {name}_timeout")).scalar() for name in ("statement", "lock")]
        idle = connection.execute(text("SHOW idle_in_transaction_session_timeout")).scalar()
    assert (found, idle) == (["500ms", "0"], "500ms")


def test_without_a_limit_a_long_statement_is_waited_for(through: str) -> None:
    with store.open(through, SECRET, None) as made, made._engine.connect() as connection:
        assert connection.execute(text("SELECT 1 FROM pg_sleep(1)")).scalar() == 1
        assert connection.execute(text("SHOW statement_timeout")).scalar() == "0"
