"""Services around a scripted engine: in process (`opened`), or behind a real socket (`served`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from serving import listening, make
from starlette.testclient import TestClient

from tuneloop.generate.scripted_live import ScriptedLive
from tuneloop.serve.app import build
from tuneloop.serve.service import Service


class Opened:
    """A service with its engine and a client, in process or by its URL."""

    def __init__(
        self, service: Service, engine: ScriptedLive, client: Any = None, url: str = "", server: Any = None
    ) -> None:
        self.service, self.engine, self.client, self.url, self.server = service, engine, client, url, server

    def key(self, *roles: Any) -> dict[str, str]:
        """Headers with a new key of these roles."""
        return {"Authorization": f"Bearer {self.service.store.keys.create('test', roles)}"}

    def ask(self, text: str = "hello there", **fields: Any) -> Any:
        """Asks the toy model by HTTP."""
        body = {"model": "toy", "messages": [{"role": "user", "content": text}], **fields}
        return self.client.post("/v1/chat/completions", json=body)


Open = Callable[..., Opened]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """`opened(answer, **config)`: a service in process; closed at the end."""
    with ExitStack() as stack:

        def make_one(*arguments: Any, **options: Any) -> Opened:
            service, engine = make(tmp_path, *arguments, **options)
            stack.callback(engine.resume)
            client = stack.enter_context(TestClient(build(service), base_url="http://localhost"))
            return Opened(service, engine, client)

        yield make_one


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Open]:
    """`served(answer, **config)`: a service behind a real socket; stopped at the end."""
    with ExitStack() as stack:

        def make_one(*arguments: Any, **options: Any) -> Opened:
            service, engine = make(tmp_path, *arguments, **options)
            url, server = stack.enter_context(listening(service))
            stack.callback(engine.resume)
            return Opened(service, engine, url=url, server=server)

        yield make_one


@pytest.fixture(scope="module")
def _toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    service, engine = make(tmp_path_factory.mktemp("toy"), hosts=["chat.example.org"])
    with TestClient(build(service), base_url="http://localhost") as client:
        yield Opened(service, engine, client)


@pytest.fixture
def toy(_toy: Opened) -> Opened:
    """A service in process that a module's tests share; nothing was asked of it yet."""
    _toy.engine.asked.clear()
    return _toy
