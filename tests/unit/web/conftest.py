"""One service with its page for all tests of a process: NiceGUI is one a process."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import echo, listening, make, until

from tuneloop.generate.live import Ask
from tuneloop.generate.scripted_live import ScriptedLive
from tuneloop.serve.service import Service
from tuneloop.store.records import Feedback, Interaction
from tuneloop.web.site import Site


@dataclass
class Living:
    """A service with its page behind a real socket."""

    service: Service
    engine: ScriptedLive
    url: str
    folder: Path
    answer: Any = echo

    def client(self, **options: Any) -> httpx.Client:
        """A browser's HTTP without its pages."""
        return httpx.Client(base_url=self.url, **options)

    def login(self, *roles: Any) -> httpx.Client:
        """A client whose session began with a new key of these roles."""
        client = self.client()
        key = self.service.store.keys.create("ann", roles)
        answer = client.post("/login", data={"key": key}, headers={"Origin": self.url})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        return client

    def stored(self, said: str) -> tuple[Interaction, list[Feedback]]:
        """The answer of these words as it was recorded, with its votes."""

        def look() -> list[str]:
            with closing(sqlite3.connect(self.folder / "store.db")) as database:
                where = "SELECT id FROM interactions WHERE json_extract(answer, '$.content') = ?"
                return [id for (id,) in database.execute(where, [said])]

        (id,) = until(look)
        found = self.service.store.answer(id)
        assert found is not None
        return found, self.service.store.votes(id)


@pytest.fixture(scope="session")
def _living(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Living]:
    def answer(ask: Ask) -> str:
        return living.answer(ask)

    folder = tmp_path_factory.mktemp("page")
    service, engine = make(folder, answer, hosts=["chat.example.org"])
    with listening(service, Site) as (url, _):
        living = Living(service, engine, url, folder)
        yield living


@pytest.fixture
def living(_living: Living) -> Iterator[Living]:
    """The service, open to all, that answers by `living.answer`."""
    _living.answer = echo
    for key in _living.service.store.keys.list():
        _living.service.store.keys.revoke(key.id)
    _living.service.doorkeeper.open_to_all = True
    _living.engine.asked.clear()
    yield _living
    _living.engine.resume()
