"""Opens the database of a URL: files for the owner alone, SQLite's settings, the schema made or brought up to date."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event, insert, inspect, make_url, select, text, update
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from tuneloop.core.errors import MissingExtra, StoreError
from tuneloop.store import audit, postgres
from tuneloop.store.access import WRITES, reason, shown
from tuneloop.store.seal import Seal
from tuneloop.store.tables import METADATA, STORE, UPGRADES, VERSION

_BUSY_MS = 20_000
_AGAIN = 0.01
"""Seconds after which a file that was busy is asked for again."""
_LOCK = 0x74756E65  # of PostgreSQL's advisory locks: "tune"
_SQLITE = {
    # Readers never wait for the writer, nor it for them. Stays in the file.
    "journal_mode": "WAL",
    # Each commit is on the disk when it returns, as after a vote it must: NORMAL would keep the file whole, but a loss
    # of power could take the last seconds with it. One commit carries many answers, so the price is small.
    "synchronous": "FULL",
    "foreign_keys": "ON",
    # What is deleted is overwritten: a deleted user is gone from the file, too.
    "secure_delete": "ON",
}


def connect(url: str, seal: Seal, patience: float | None = None) -> Engine:
    """An engine for a database that is there, made where it is not, of this version and secret. Raises StoreError.

    patience: seconds after which a database that is locked or does not answer is given up; None waits as long as it
    takes, 20 s for SQLite's lock.

    Connections that write say so (`execution_options(**WRITES)`): SQLite must know when the transaction begins, as one
    that read first could not wait for another writer.
    """
    parsed = _parsed(url)
    if parsed.get_backend_name() == "sqlite":
        assert parsed.database is not None
        _own(Path(parsed.database))
        busy = _BUSY_MS / 1000 if patience is None else patience
        engine = create_engine(parsed, hide_parameters=True, connect_args={"timeout": busy})
        event.listen(engine, "connect", _set_up)
        event.listen(engine, "begin", _begin)
    else:
        engine = postgres.engine(parsed, patience)
    try:
        with engine.execution_options(**WRITES).begin() as connection:
            prepare(connection, seal)
    except SQLAlchemyError as error:
        raise StoreError(f"{shown(parsed)} cannot be opened as a store: {reason(error)}") from error
    return engine


def prepare(
    connection: Connection,
    seal: Seal,
    version: int = VERSION,
    upgrades: Mapping[int, Callable[[Connection], None]] = UPGRADES,
) -> None:
    """Makes the tables in a new database and brings an older one up to date, in the caller's one transaction.

    Several processes may do it at once: the first does it. Raises StoreError for a newer database or another secret.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    fingerprint = seal.mac("store", "fingerprint")
    if not inspect(connection).has_table(STORE.name):
        METADATA.create_all(connection, checkfirst=False)  # a table of that name that is not ours is an error
        row = {"version": version, "created": datetime.now(UTC), "fingerprint": fingerprint}
        connection.execute(insert(STORE), row)
        audit.begin(connection, seal)
        return
    found, other = connection.execute(select(STORE.c.version, STORE.c.fingerprint)).one()
    if other != fingerprint:
        raise StoreError("this store was made with another secret: its users, keys and signed ids need that one")
    if found > version:
        raise StoreError(
            f"this store is of version {found}, made by a newer tuneloop; this one knows {version}: upgrade tuneloop"
        )
    for step in range(found, version):
        upgrades[step](connection)
        connection.execute(update(STORE).values(version=step + 1))


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise StoreError("the store's URL is none: write sqlite:///folder/store.db or postgresql://…") from None
    backend = parsed.get_backend_name()
    if backend in ("postgresql", "postgres"):
        if find_spec("psycopg") is None:
            raise MissingExtra("psycopg", "a store on PostgreSQL", "postgres")
        return parsed.set(drivername="postgresql+psycopg")
    if backend == "sqlite" and parsed.database not in (None, "", ":memory:"):
        return parsed.set(drivername="sqlite+pysqlite")
    raise StoreError(f"{shown(parsed)}: a store is sqlite:///folder/store.db (a file) or postgresql://user@host/name")


def _own(path: Path) -> None:
    """Makes a database's file before SQLite does, so that from its first moment the owner alone may read it."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        for file in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
            if file.exists() and file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                file.chmod(0o600)
    except OSError as error:
        raise StoreError(f"{path} cannot be the store's file: {error.strerror or error}") from error


def _set_up(connection: object, _record: object) -> None:
    import sqlite3

    assert isinstance(connection, sqlite3.Connection)
    connection.isolation_level = None  # the driver would begin transactions when it likes; `_begin` does
    end = time.monotonic() + connection.execute("PRAGMA busy_timeout").fetchone()[0] / 1000
    for name, value in _SQLITE.items():
        while True:
            try:
                connection.execute(f"PRAGMA {name}={value}").close()
                break
            except sqlite3.OperationalError as error:
                # a new file goes over to its log when nobody else has it open, and SQLite itself does not wait for that
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                    raise
                time.sleep(_AGAIN)


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
