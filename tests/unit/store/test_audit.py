"""The audit log: it only grows, and whatever is changed, put in or taken out shows."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection, create_engine, delete, select, text, update
from sqlalchemy.exc import DBAPIError

from tests.unit.store.conftest import SECRET
from tuneloop.store import audit, database, store
from tuneloop.store.audit import Broken
from tuneloop.store.seal import Seal
from tuneloop.store.store import Store
from tuneloop.store.tables import AUDIT, AUDIT_HEAD

STRANGER = Seal(b"x" * 32)


@pytest.fixture
def filled(opened: Store) -> Store:
    for number in range(5):
        opened.audit("k1", "promote", {"version": number, "理由": "良", "score": 0.1})
    return opened


def tamper(url: str, change: Callable[[Connection], object]) -> None:
    """Changes tables as somebody would who owns the database, but has not the secret."""
    engine = create_engine(database.connect(url, Seal(SECRET)).url)
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            for what in ("update", "delete"):
                connection.execute(text(f"DROP TRIGGER audit_no_{what}"))
        else:
            connection.execute(text("DROP TRIGGER audit_only_grows ON audit"))
        change(connection)
    engine.dispose()


def test_entries_come_back_in_order(filled: Store) -> None:
    entries = list(filled.audit_log())
    assert [entry.number for entry in entries] == [1, 2, 3, 4, 5]
    assert entries[3].detail == {"version": 3, "理由": "良", "score": 0.1}
    assert list(filled.audit_log(after=3)) == entries[3:]
    assert filled.verify_audit() is None


def test_an_empty_log_is_whole(opened: Store) -> None:
    assert opened.verify_audit() is None


def test_pages_do_not_matter(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_PAGE", 2)
    assert len(list(filled.audit_log())) == 5
    assert filled.verify_audit() is None


@pytest.mark.parametrize("statement", [update(AUDIT).values(actor="me"), delete(AUDIT)])
def test_the_database_itself_refuses_changes(url: str, filled: Store, statement: object) -> None:
    engine = create_engine(database.connect(url, Seal(SECRET)).url)
    with pytest.raises(DBAPIError, match="only grows"), engine.begin() as connection:
        connection.execute(statement)  # type: ignore[call-overload]
    engine.dispose()
    assert filled.verify_audit() is None


@pytest.mark.parametrize(
    ("change", "number", "words"),
    [
        (update(AUDIT).where(AUDIT.c.number == 3).values(actor="me"), 3, "not as it was written"),
        (update(AUDIT).where(AUDIT.c.number == 3).values(detail="not json"), 3, "not as it was written"),
        (update(AUDIT).where(AUDIT.c.number == 2).values(mac="00"), 2, "not as it was written"),
        (delete(AUDIT).where(AUDIT.c.number == 3), 3, "entry 3 is missing"),
        (delete(AUDIT).where(AUDIT.c.number == 1), 1, "entry 1 is missing"),
        (delete(AUDIT).where(AUDIT.c.number >= 4), 4, "and all behind it"),
        (delete(AUDIT), 1, "entry 1 is missing"),
        (update(AUDIT_HEAD).values(number=4), 4, "not the one that was last"),
        (update(AUDIT_HEAD).values(seal=""), 6, "how many entries"),
        (delete(AUDIT_HEAD), 6, "how many entries"),
    ],
)  # fmt: skip
def test_the_first_broken_entry_is_found(url: str, filled: Store, change: object, number: int, words: str) -> None:
    tamper(url, lambda connection: connection.execute(change))  # type: ignore[call-overload]
    found = filled.verify_audit()
    assert isinstance(found, Broken)
    assert found.number == number
    assert words in found.why


def test_entries_taken_from_the_end_with_a_head_to_match_are_missed(url: str, filled: Store) -> None:
    def cut(connection: Connection) -> None:
        connection.execute(delete(AUDIT).where(AUDIT.c.number > 3))
        mac = connection.execute(select(AUDIT.c.mac).where(AUDIT.c.number == 3)).scalar_one()
        connection.execute(update(AUDIT_HEAD).values(number=3, mac=mac))

    tamper(url, cut)
    found = filled.verify_audit()
    assert found is not None
    assert "how many entries" in found.why


def test_an_entry_made_without_the_secret_shows(url: str, filled: Store) -> None:
    tamper(url, lambda connection: audit.append(connection, STRANGER, "k9", "promote", {}))
    found = filled.verify_audit()
    assert found is not None
    assert found.number == 6

    # a log that a stranger made anew from the start, too
    def anew(connection: Connection) -> None:
        connection.execute(delete(AUDIT))
        connection.execute(delete(AUDIT_HEAD))
        audit.begin(connection, STRANGER)
        audit.append(connection, STRANGER, "k9", "promote", {})

    engine = create_engine(database.connect(url, Seal(SECRET)).url)
    with engine.begin() as connection:
        anew(connection)
    engine.dispose()
    found = filled.verify_audit()
    assert found is not None
    assert found.number == 1


def test_many_writers_make_one_chain(url: str, opened: Store) -> None:
    stores = [opened, *(store.open(url, SECRET) for _ in range(3))]
    with ThreadPoolExecutor(16) as pool:
        entries = list(pool.map(lambda n: stores[n % 4].audit(f"k{n}", "vote", {"n": n}), range(120)))
    assert sorted(entry.number for entry in entries) == list(range(1, 121))
    assert opened.verify_audit() is None
    for other in stores[1:]:
        other.close()


def test_a_detail_that_is_no_json_is_refused(opened: Store) -> None:
    with pytest.raises(TypeError):
        opened.audit("k1", "promote", {"when": object()})
    assert list(opened.audit_log()) == []
    opened.audit("k1", "promote")  # and nothing is stuck
