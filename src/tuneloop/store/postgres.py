"""Connections to PostgreSQL that give a server up that does not answer. Knows no tables.

A server that hangs still has its system acknowledge what is sent, so that no time-out of TCP comes: who waits counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import URL, Engine, create_engine, event

if TYPE_CHECKING:
    import psycopg
    from psycopg.abc import PQGen

T = TypeVar("T")
_NETWORK = {
    # a server that is gone is told of in seconds; the system would wait for two minutes
    "connect_timeout": 5,
    # a cable that is out ends even those who wait for ever, after a minute
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""Defaults of libpq's options; a URL may name others."""


def engine(url: URL, patience: float | None) -> Engine:
    """An engine whose statements fail after so many seconds without an answer, and connections after five.

    None waits for ever, as reorganising a large database may take long. The server is told of the limit, too: it would
    go on with what nobody waits for, and hold its locks.
    """
    network = {name: value for name, value in _NETWORK.items() if name not in url.query}
    if patience is None:
        return create_engine(url, hide_parameters=True, pool_pre_ping=True, connect_args=network)
    made = create_engine(url, hide_parameters=True, pool_pre_ping=True, connect_args=network, pool_timeout=patience)
    kind = _patient(patience)

    def connected(_dialect: Any, _record: Any, arguments: Any, options: Any) -> psycopg.Connection[Any]:
        return kind.connect(*arguments, **options)

    def limited(connection: psycopg.Connection[Any], _record: Any) -> None:
        for name in ("statement_timeout", "idle_in_transaction_session_timeout"):
            connection.execute("SELECT set_config(%s, %s, false)", (name, f"{patience * 1000:.0f}"))
        connection.commit()

    event.listen(made, "do_connect", connected)
    event.listen(made, "connect", limited)
    return made


def _patient(seconds: float) -> type[psycopg.Connection[Any]]:
    """psycopg's connection, but one that waits for no answer longer than that."""
    import psycopg
    from psycopg.pq import TransactionStatus

    class Patient(psycopg.Connection[Any]):
        def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
            try:
                return super().wait(gen, interval, seconds if timeout is None else timeout)
            except psycopg.OperationalError as error:
                if self.pgconn.transaction_status != TransactionStatus.ACTIVE:
                    raise
                self.pgconn.finish()  # its answer may still come, and would be taken for that of the next statement
                raise psycopg.OperationalError(f"no answer within {seconds:g} s") from error

    return Patient
