"""Opening: files for the owner alone, settings, versions, and words for what cannot be opened."""

from __future__ import annotations

import os
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, inspect, text

from tests.unit.store.conftest import SECRET
from tuneloop.core.errors import MissingExtra, StoreError
from tuneloop.store import database, store
from tuneloop.store.access import WRITES
from tuneloop.store.seal import Seal
from tuneloop.store.tables import METADATA, VERSION

SEAL = Seal(SECRET)


def plain(url: str) -> Engine:
    """An engine of the same database without the store's ways."""
    return create_engine(database.connect(url, SEAL).url)


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    old = os.umask(0)
    try:
        with store.open(f"sqlite:///{folder}/store.db", SECRET) as opened:
            opened.audit("a", "b")
            modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
            assert modes == {"store.db": 0o600, "store.db-wal": 0o600, "store.db-shm": 0o600}
    finally:
        os.umask(old)
    assert folder.stat().st_mode & 0o777 == 0o700
    (folder / "store.db").chmod(0o644)
    store.open(f"sqlite:///{folder}/store.db", SECRET).close()
    assert (folder / "store.db").stat().st_mode & 0o777 == 0o600


def test_sqlite_is_set_to_keep_what_it_confirmed(tmp_path: Path) -> None:
    wanted = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "secure_delete": 1, "busy_timeout": 20_000}
    engine = database.connect(f"sqlite:///{tmp_path}/store.db", SEAL)
    with engine.connect() as connection:
        found = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in wanted}
    engine.dispose()
    assert found == wanted


def test_several_open_a_new_database_at_once(url: str) -> None:
    with ThreadPoolExecutor(6) as pool:
        opened = list(pool.map(lambda _: store.open(url, SECRET), range(6)))
    for number, one in enumerate(opened):
        one.audit("a", str(number))
    assert opened[0].verify_audit() is None
    for one in opened:
        one.close()


def test_new_files_opened_at_the_same_moment(tmp_path: Path) -> None:
    """SQLite's own patience does not cover the change to a write-ahead log: of 60 such moments three failed."""
    ready = threading.Barrier(8)

    def opened(number: int) -> None:
        ready.wait()
        database.connect(f"sqlite:///{tmp_path}/{number}/store.db", SEAL).dispose()

    with ThreadPoolExecutor(8) as pool:
        for number in range(40):
            list(pool.map(opened, [number] * 8))


def test_another_secret_is_refused(url: str) -> None:
    store.open(url, SECRET).close()
    with pytest.raises(StoreError, match="another secret"):
        store.open(url, b"x" * 32)


def test_a_newer_database_is_refused_and_left_as_it_is(url: str) -> None:
    engine = plain(url)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE store SET version = {VERSION + 1}"))
    with pytest.raises(StoreError, match=f"of version {VERSION + 1}, made by a newer tuneloop.*upgrade tuneloop"):
        store.open(url, SECRET)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version FROM store")).scalar_one() == VERSION + 1
    engine.dispose()


def version_of(connection: Connection) -> int:
    return connection.execute(text("SELECT version FROM store")).scalar_one()


def test_an_older_database_is_brought_up_step_by_step_once(url: str) -> None:
    engine, ran = plain(url), list[int]()

    def step(number: int) -> Any:
        def run(connection: Connection) -> None:
            ran.append(number)
            connection.execute(text(f"CREATE TABLE later{number} (id INTEGER)"))

        return run

    upgrades = {VERSION: step(1), VERSION + 1: step(2)}
    for _ in range(2):
        with engine.begin() as connection:
            database.prepare(connection, SEAL, VERSION + 2, upgrades)
            assert version_of(connection) == VERSION + 2
    assert ran == [1, 2]
    assert {"later1", "later2"} <= set(inspect(engine).get_table_names())
    engine.dispose()


def test_an_upgrade_that_fails_changes_nothing(url: str) -> None:
    engine = database.connect(url, SEAL).execution_options(**WRITES)

    def good(connection: Connection) -> None:
        connection.execute(text("CREATE TABLE later (id INTEGER)"))

    def bad(connection: Connection) -> None:
        connection.execute(text("INSERT INTO later VALUES (1)"))
        raise KeyError("bad")

    with pytest.raises(KeyError), engine.begin() as connection:
        database.prepare(connection, SEAL, VERSION + 2, {VERSION: good, VERSION + 1: bad})
    with engine.begin() as connection:
        assert version_of(connection) == VERSION
    assert set(inspect(engine).get_table_names()) == set(METADATA.tables)
    engine.dispose()


def test_a_database_of_somebody_else_is_not_mixed_with(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE feedback (id)")
    connection.close()
    with pytest.raises(StoreError, match="table feedback already exists"):
        store.open(f"sqlite:///{path}", SECRET)
    assert inspect(create_engine(f"sqlite:///{path}")).get_table_names() == ["feedback"]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("store.db", "write sqlite:///"), ("", "write sqlite:///"), ("sqlite://", "a file"),
        ("sqlite:///:memory:", "a file"), ("mysql://root:hunter2@db/x", "a store is sqlite"),
    ],
)  # fmt: skip
def test_a_url_that_is_none_says_how_to_write_one(url: str, words: str) -> None:
    with pytest.raises(StoreError, match=words) as raised:
        store.open(url, SECRET)
    assert "hunter2" not in str(raised.value)


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("not a database, but a text that is long enough to be looked at" * 20)
    with pytest.raises(StoreError, match=r"x\.db cannot be opened as a store: file is not a database"):
        store.open(f"sqlite:///{tmp_path}/x.db", SECRET)
    with pytest.raises(StoreError, match="cannot be the store's file"):
        store.open(f"sqlite:///{tmp_path}/x.db/y.db", SECRET)


def test_no_password_is_told(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(StoreError) as raised:
        store.open(f"postgresql://me:hunter2@/x?host={tmp_path}", SECRET)
    assert "me:***@" in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_a_missing_driver_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuneloop.store.database.find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"tuneloop\[postgres\]"):
        store.open("postgres://db/x", SECRET)


def test_importing_the_store_is_light() -> None:
    from tests.contracts.test_imports import heavy_after

    assert heavy_after("tuneloop.store.store") == []
