"""Moves a store to another database, say from SQLite to PostgreSQL: every row of every table as it is."""

from __future__ import annotations

from sqlalchemy import Connection, Engine, delete, func, insert, select, text

from tuneloop.core.errors import StoreError
from tuneloop.store.access import WRITES
from tuneloop.store.tables import AUDIT_HEAD, FEEDBACK, METADATA, STORE

_PAGE = 1_000


def copy(source: Engine, target: Engine) -> int:
    """Copies all rows into a store of the same secret that is still empty, in one transaction; returns how many.

    What is written into the source meanwhile may be missing. Raises StoreError when the target holds something.
    """
    tables = [table for table in METADATA.sorted_tables if table is not STORE]
    with source.connect() as reading, target.execution_options(**WRITES).begin() as writing:
        for table in tables:
            if table is not AUDIT_HEAD and writing.execute(select(func.count()).select_from(table)).scalar_one():
                raise StoreError(f"the store to copy into is not empty: there are rows in {table.name}")
        writing.execute(delete(AUDIT_HEAD))  # of the empty log
        copied = 0
        for table in tables:
            rows = reading.execution_options(yield_per=_PAGE).execute(select(table).order_by(*table.primary_key))
            for page in rows.mappings().partitions():
                writing.execute(insert(table), [dict(row) for row in page])
                copied += len(page)
        _count_on(writing)
    return copied


def _count_on(connection: Connection) -> None:
    """PostgreSQL numbers votes by a sequence of its own; SQLite goes on from the largest number."""
    if connection.dialect.name == "postgresql":
        last = select(func.max(FEEDBACK.c.number)).scalar_subquery()
        name = func.pg_get_serial_sequence(text("'feedback'"), text("'number'"))
        connection.execute(select(func.setval(name, func.coalesce(last + 1, 1), text("false"))))
