"""What all who read and write need of a database: connections, and words for its errors that tell no secrets."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from sqlalchemy import URL, Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from tuneloop.core.errors import StoreError

WRITES = {"writes": True}
"""Execution options of an engine or connection that will write."""


def shown(url: URL) -> str:
    """A URL for people: without its password."""
    return url.render_as_string(hide_password=True)


def reason(error: Exception) -> str:
    """What the database said, in one line, without the statement and its values: they may be private."""
    return str(getattr(error, "orig", None) or error).strip().partition("\n")[0]


@contextmanager
def reading(engine: Engine) -> Generator[Connection]:
    """A connection to read with. Raises StoreError when the database does not answer."""
    try:
        with engine.connect() as connection:
            yield connection
    except SQLAlchemyError as error:
        raise StoreError(f"the store cannot be read: {reason(error)}") from error


def forget(engine: Engine) -> None:
    """What was deleted leaves SQLite's write-ahead log too, as far as nobody reads it. PostgreSQL's vacuum does so."""
    if engine.dialect.name == "sqlite":
        connection = engine.raw_connection()
        try:
            connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            connection.close()
