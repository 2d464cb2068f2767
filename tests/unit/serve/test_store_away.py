"""A store that hangs or is locked: answers go on, who needs it is refused in time, and all goes on when it is back."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import until

from tests import blackhole, postgres_server
from tests.blackhole import Blackhole
from tests.unit.store.conftest import new_database
from tuneloop.serve import auth
from tuneloop.store import writer

FAR_TOO_LONG = 20.0
ASKED = {"model": "toy", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with postgres_server.or_skip(postgres_server.server(fsync="off")) as url:
        yield url


@pytest.fixture
def way(postgres: str) -> Iterator[Blackhole]:
    with blackhole.before_postgres(postgres) as made:
        yield made


@pytest.fixture
def through(postgres: str, way: Blackhole) -> str:
    return blackhole.through(way, new_database(postgres))


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits gives up sooner."""
    monkeypatch.setattr(auth, "PATIENCE", 1.5)
    monkeypatch.setattr(auth, "REMEMBERED", 0.3)
    monkeypatch.setattr(writer, "HOPE", 0.3)


@pytest.fixture
def file_key(tmp_path: Path) -> Path:
    """A key file: its keys are good without any database."""
    path = tmp_path / "keys"
    path.write_text("k" * 40 + "\n")
    path.chmod(0o600)
    return path


OF_FILE = {"Authorization": "Bearer " + "k" * 40}


def ask(http: httpx.Client, key: dict[str, str], **fields: Any) -> httpx.Response:
    return http.post("/v1/chat/completions", json={**ASKED, **fields}, headers=key)


def crowd(http: httpx.Client, key: dict[str, str], count: int) -> list[int]:
    """The states that so many are answered who ask at once."""
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(ask(http, key).status_code)) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_a_hanging_database_stops_no_answers(through: str, way: Blackhole, served: Any, file_key: Path) -> None:
    one = served(open_to_all=False, store=through, key_file=file_key, patience=1.5)
    key, rate = one.key("chat"), one.key("rate")
    with httpx.Client(base_url=one.url, timeout=FAR_TOO_LONG) as http:
        signed = ask(http, key).headers["X-Answer-Id"]
        one.engine.pause(1)
        streams: list[httpx.Response] = []
        begun = threading.Thread(target=lambda: streams.append(ask(http, key, stream=True)))
        begun.start()
        until(lambda: one.engine.now().running)
        way.silence()
        one.engine.resume()
        begun.join()
        assert "data: [DONE]" in streams[0].text, "what was under way ends well"
        time.sleep(0.4)  # until the key is no longer remembered
        refused = crowd(http, key, 20)
        assert refused == [503] * 20
        answer = ask(http, key)
        assert (answer.json()["error"]["code"], answer.headers["Retry-After"]) == ("store_unavailable", "5")
        unknown = crowd(http, {"Authorization": "Bearer tl-00000000-" + "A" * 43}, 20)
        assert unknown == [503] * 20
        assert crowd(http, OF_FILE, 10) == [200] * 10, "keys of a file need no database"
        vote = http.post("/v1/feedback", json={"answer": signed, "thumb": 1}, headers=OF_FILE)
        assert vote.json()["error"]["code"] == "store_unavailable"
        assert http.get("/health").status_code == http.get("/ready").status_code == 200
        way.resume()
        until(lambda: ask(http, key).status_code == 200)
        until(lambda: http.post("/v1/feedback", json={"answer": signed, "thumb": 1}, headers=rate).status_code == 200)
        one.service.store.flush()
    assert one.service.store.stats().answers >= 13


def test_many_votes_at_a_hanging_database_stop_no_keys_of_others(
    through: str, way: Blackhole, served: Any, file_key: Path
) -> None:
    """Votes and keys wait in threads of their own: those of the event loop stay free."""
    one = served(open_to_all=False, store=through, key_file=file_key, patience=3)
    with httpx.Client(base_url=one.url, timeout=FAR_TOO_LONG) as http:
        signed = ask(http, OF_FILE).headers["X-Answer-Id"]
        until(lambda: http.get("/health").status_code == 200)
        way.silence()
        found: list[int] = []

        def vote() -> None:
            body = {"answer": signed, "thumb": 1}
            found.append(http.post("/v1/feedback", json=body, headers=OF_FILE).status_code)

        threads = [threading.Thread(target=vote) for _ in range(30)]
        for thread in threads:
            thread.start()
        until(lambda: one.service.clerks._under_way >= 4)
        assert crowd(http, {"Authorization": "Bearer tl-00000000-" + "A" * 43}, 5) == [503] * 5
        assert ask(http, OF_FILE).status_code == 200
        for thread in threads:
            thread.join()
        assert set(found) == {503}
        way.resume()


def test_a_locked_sqlite_stops_no_answers_and_no_keys(served: Any, tmp_path: Path) -> None:
    one = served(open_to_all=False, patience=0.3)
    key, rate = one.key("chat"), one.key("rate")
    with httpx.Client(base_url=one.url, timeout=FAR_TOO_LONG) as http:
        signed = ask(http, key).headers["X-Answer-Id"]
        one.service.store.flush()
        other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        try:
            time.sleep(0.4)
            assert crowd(http, key, 10) == [200] * 10  # readers do not wait for a writer
            assert http.get("/v1/models", headers=rate).status_code == 403
            vote = http.post("/v1/feedback", json={"answer": signed, "thumb": 1}, headers=rate)
            assert (vote.status_code, vote.json()["error"]["code"]) == (503, "store_unavailable")
        finally:
            other.execute("ROLLBACK")
            other.close()
        until(lambda: http.post("/v1/feedback", json={"answer": signed, "thumb": 1}, headers=rate).status_code == 200)
    assert one.service.store.stats().answers == 11


def test_a_service_without_keys_outlives_its_database(
    through: str, way: Blackhole, served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether there are keys now is looked up, too."""
    monkeypatch.setattr(auth, "PATIENCE", 0.3)
    one = served(store=through, patience=1.5)
    with httpx.Client(base_url=one.url, timeout=FAR_TOO_LONG) as http:
        assert ask(http, {}).status_code == 200
        way.silence()
        for _ in range(3):
            assert ask(http, {}).status_code == 200
            time.sleep(0.1)
        way.resume()
        key = one.key("chat")
        until(lambda: ask(http, {}).status_code == 401)
        assert ask(http, key).status_code == 200


def test_who_looks_a_key_up_is_asked_once_for_all(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one = opened(open_to_all=False)
    key = one.key("chat")
    verify, calls, go = one.service.store.keys.verify, list[str](), threading.Event()

    def slow(secret: str) -> Any:
        calls.append(secret)
        go.wait(5)
        return verify(secret)

    monkeypatch.setattr(auth, "PATIENCE", 20)
    monkeypatch.setattr(one.service.store.keys, "verify", slow)
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(one.client.get("/v1/models", headers=key).status_code))
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    go.set()
    for thread in threads:
        thread.join()
    assert found == [200] * 5
    assert len(calls) == 1
