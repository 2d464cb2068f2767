"""Every test of the store runs on SQLite and on a real PostgreSQL server."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from tests import postgres_server
from tuneloop.core.conversation import Message
from tuneloop.store import records, store
from tuneloop.store.records import Interaction
from tuneloop.store.store import Store

SECRET = bytes(range(32))
START = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A server for the session. It need not survive a loss of power, the tests' own processes are what dies."""
    with postgres_server.or_skip(postgres_server.server(fsync="off")) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a new, empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/kept/store.db"
        return
    yield new_database(request.getfixturevalue("postgres"))


def new_database(server: str) -> str:
    """The URL of a new database of a server."""
    parsed = make_url(server).set(drivername="postgresql+psycopg")
    name = f"test{secrets.token_hex(4)}"
    engine = create_engine(parsed.set(database="postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return parsed.set(drivername="postgresql", database=name).render_as_string(hide_password=False)


@pytest.fixture
def opened(url: str) -> Iterator[Store]:
    """A store on it, without redaction."""
    with store.open(url, SECRET, None) as made:
        yield made


@pytest.fixture
def asked(opened: Store) -> Callable[..., Interaction]:
    """`asked(user="alice", **fields)`: an answer that was given one second after the last one and is recorded."""
    count = itertools.count()

    def ask(user: str = "alice", **fields: Any) -> Interaction:
        number = next(count)
        given = {
            "id": records.new_id(), "time": START + timedelta(seconds=number), "user": opened.pseudonym(user),
            "model": "desk", "prompt": (Message("user", f"question {number}"),), "answer": f"answer {number}",
            "finish": "stop",
        }  # fmt: skip
        one = Interaction(**{**given, **fields})
        opened.record(one)
        return one

    return ask
