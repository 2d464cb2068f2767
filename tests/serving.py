"""A service around a scripted engine, in process or listening on a port of this machine, for tests."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tuneloop.generate.live import Ask
from tuneloop.generate.scripted_live import ScriptedLive
from tuneloop.serve.adapters import Roster
from tuneloop.serve.auth import Doorkeeper
from tuneloop.serve.config import ServeConfig
from tuneloop.serve.front import Site
from tuneloop.serve.server import Server
from tuneloop.serve.service import Embedder, Service
from tuneloop.store import store

SECRET = b"a secret of tests, of no use else"
SECONDS = 20.0
"""Longest wait for something that comes at once on an idle machine."""


def echo(ask: Ask) -> str:
    """Answers with model, seed and question, so that a mixed-up answer is seen."""
    return f"{ask.model} says: {ask.request.messages[-1].content}"


def make(
    folder: Path,
    answer: Callable[[Ask], str] = echo,
    *,
    open_to_all: bool = True,
    embedder: Embedder | None = None,
    places: int = 4,
    queue: int = 64,
    key_file: Path | None = None,
    **config: Any,
) -> tuple[Service, ScriptedLive]:
    """A service whose only model is called `toy`, and its engine. Close the service, or `listening` does."""
    engine = ScriptedLive(answer, places=places, queue=queue)
    kept = store.open(f"sqlite:///{folder}/store.db", SECRET)
    settings = ServeConfig.model_validate({"port": 0, **config})
    doorkeeper = Doorkeeper(kept, open_to_all=open_to_all, key_file=key_file)
    runs = folder / "runs"
    runs.mkdir(exist_ok=True)
    return Service(settings, engine, Roster(engine, "toy"), kept, doorkeeper, embedder, runs), engine


@contextmanager
def listening(service: Service, site: Callable[[Service], Site] | None = None) -> Iterator[tuple[str, Server]]:
    """The service (with pages) behind a real socket, with its URL. At the end it is stopped as by a signal."""
    server = Server(service, site(service) if site is not None else None)
    thread = threading.Thread(target=server.run, name="server")
    thread.start()
    try:
        until(lambda: server.started)
        host, port = server.servers[0].sockets[0].getsockname()[:2]
        yield f"http://{host}:{port}", server
    finally:
        server.should_exit = True
        thread.join()


def until(there: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """Waits until something is so; fails when it does not become so."""
    end = time.monotonic() + seconds
    while not (found := there()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)
    return found


def tune_run(root: Path, name: str, weights: bytes = b"weights", stage: str = "tune") -> Path:
    """A folder that looks like a finished run with an adapter."""
    adapter = root / name / "out" / "adapter"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "adapter_model.safetensors").write_bytes(weights)
    (root / name / "run.json").write_text(
        json.dumps({"stage": stage, "status": "done", "created": "2026-11-22T00:00:00+00:00"})
    )
    (root / name / "DONE").write_text("")
    return adapter
