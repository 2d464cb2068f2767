"""The real command, killed in the middle of its work and left by its database: what it confirmed is there after.

It stands in front of a server of this process, as votes do not know how answers are made: five starts without torch.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from chat_server import Reply, chat_server, delta, events
from serving import SECONDS, Command, until

from tests import postgres_server
from tests.unit.store.conftest import new_database
from tuneloop.core.example_file import ExampleFile
from tuneloop.store import seal, store
from tuneloop.store.store import Store

ASKED = {"model": "m", "messages": [{"role": "user", "content": "Say yes."}], "max_tokens": 4}
Serving = Callable[[str], Command]


@pytest.fixture
def cluster() -> Iterator[postgres_server.Cluster]:
    with postgres_server.or_skip(postgres_server.cluster(fsync="off")) as made:
        yield made


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    """`serving(url)`: the command with its store at this URL."""

    def answer(_path: str, _body: dict[str, Any]) -> Reply:
        return 200, events(delta("yes"), delta(finish="stop"))

    limits = "{requests_per_minute: 100000, feedback_per_minute: 100000}"
    with chat_server(answer) as behind:
        yield lambda url: Command(
            tmp_path, behind.url, "--set", f"serve.store={url}", "--set", f"serve.limits={limits}"
        )


def kept(folder: Path, url: str) -> Store:
    return store.open(url, seal.load(folder / "tuneloop.secret"))


def ask(http: httpx.Client) -> str:
    """The signed id of an answer."""
    answer = http.post("/v1/chat/completions", json=ASKED)
    assert answer.status_code == 200, answer.text
    return answer.headers["X-Answer-Id"]


def vote(http: httpx.Client, signed: str, thumb: int = 1) -> httpx.Response:
    return http.post("/v1/feedback", json={"answer": signed, "thumb": thumb, "comment": "well, well"})


class Voters:
    """Four clients that ask and vote until the service is gone; `confirmed`: votes of which it said they are kept."""

    def __init__(self, url: str) -> None:
        self.confirmed: list[tuple[str, int]] = []
        self._url = url
        self._threads = [threading.Thread(target=self._work, args=[random.Random(seed)]) for seed in range(4)]
        for thread in self._threads:
            thread.start()

    def _work(self, draw: random.Random) -> None:
        with httpx.Client(base_url=self._url, timeout=SECONDS) as http:
            try:
                while True:
                    signed = ask(http)
                    for thumb in draw.sample((-1, 0, 1), 2):
                        if vote(http, signed, thumb).status_code == 200:
                            self.confirmed.append((signed, thumb))
            except httpx.HTTPError:
                return

    def end(self) -> None:
        for thread in self._threads:
            thread.join()


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_killed_service_has_lost_no_confirmed_vote(
    database: str, serving: Serving, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path}/kept.db"
    if database == "postgresql":
        url = new_database(request.getfixturevalue("cluster").url)
    with serving(url) as service:
        voters = Voters(service.url)
        until(lambda: len(voters.confirmed) > 20, 60)
        time.sleep(random.Random(5).uniform(0, 0.3))  # anywhere within a write or a commit
        service.end(signal.SIGKILL)
        voters.end()
    with serving(url) as service, httpx.Client(base_url=service.url, timeout=SECONDS) as http:
        signed = voters.confirmed[-1][0]
        assert vote(http, signed).status_code == 200, "its signature holds after the restart"
        assert service.end()[0] == 0
    with kept(tmp_path, url) as opened:
        for signed, thumb in voters.confirmed:
            id = opened.check(signed)
            assert id is not None and opened.answer(id) is not None
            assert thumb in [found.thumb for found in opened.votes(id)]
        assert opened.verify_audit() is None
        assert [entry.action for entry in opened.audit_log()] == ["serve", "serve"]
        count = opened.export(tmp_path / "all.jsonl")  # reads every row to its end
        assert sum(1 for _ in ExampleFile(tmp_path / "all.jsonl")) == count == opened.stats().answers


def test_postgresql_may_go_away_and_come_back(
    cluster: postgres_server.Cluster, serving: Serving, tmp_path: Path
) -> None:
    url = new_database(cluster.url)
    with serving(url) as service, httpx.Client(base_url=service.url, timeout=SECONDS) as http:
        signed = [ask(http)]
        assert vote(http, signed[0]).status_code == 200
        cluster.stop()
        signed += [ask(http) for _ in range(5)]  # answers go on, and wait to be written
        until(lambda: vote(http, signed[0], -1).status_code == 503)
        refused = vote(http, signed[0], -1)
        assert refused.json()["error"]["code"] == "store_unavailable" and refused.headers["Retry-After"]
        assert httpx.get(f"{service.url}/health").status_code == 200
        cluster.start()
        until(lambda: vote(http, signed[1]).status_code == 200)
        signed.append(ask(http))
        code, _ = service.end()
        assert code == 0
        log = "".join(service.lines)
        assert "goes on trying" in log and "well, well" not in log
    with kept(tmp_path, url) as opened:
        ids = [opened.check(one) or "" for one in signed]
        assert all(opened.answer(id) is not None for id in ids)
        assert [found.thumb for found in opened.votes(ids[1])] == [1]
        assert opened.verify_audit() is None
