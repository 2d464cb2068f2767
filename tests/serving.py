"""Services for tests: around a scripted or another engine, in process or listening; the real command; adapters."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tuneloop.generate.live import Ask, LiveEngine
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
    return around(engine, folder, open_to_all=open_to_all, embedder=embedder, key_file=key_file, **config), engine


def around(
    engine: LiveEngine,
    folder: Path,
    *,
    open_to_all: bool = True,
    embedder: Embedder | None = None,
    key_file: Path | None = None,
    **config: Any,
) -> Service:
    """A service of any engine, whose model is called `toy`, with runs and store in a folder."""
    settings = ServeConfig.model_validate({"port": 0, "store": f"sqlite:///{folder}/store.db", **config})
    kept = store.open(settings.store, SECRET)
    doorkeeper = Doorkeeper(kept, open_to_all=open_to_all, key_file=key_file)
    runs = folder / "runs"
    runs.mkdir(exist_ok=True)
    return Service(settings, engine, Roster(engine, "toy"), kept, doorkeeper, embedder, runs)


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
        json.dumps({"stage": stage, "name": name, "status": "done", "created": "2026-11-22T00:00:00+00:00"})
    )
    (root / name / "DONE").write_text("")
    return adapter


def broken(host: str, much: dict[str, Any], headers: str = "") -> Iterator[bytes]:
    """What broken clients send before they fall silent, in turns; one asks for `much` and reads nothing of it."""
    body = json.dumps(much).encode()
    known = f"Host: {host}\r\nContent-Type: application/json\r\n{headers}"
    head = f"POST /v1/chat/completions HTTP/1.1\r\n{known}".encode()
    while True:
        yield b""
        yield b"GET /health HT"
        yield head + b"X-Long: "
        yield head + b"Content-Length: 1000\r\n\r\n{"
        yield head + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel"
        yield head + f"Content-Length: {len(body)}\r\n\r\n".encode() + body
        yield b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 5
        yield head + b"Content-Length: 5\r\nContent-Length: 7\r\n\r\n12345"


def random_lora(folder: Path, model: Any, seed: int, **options: Any) -> Any:
    """Saves an adapter with random weights large enough to be heard; returns the model with it, merged."""
    import torch
    from peft import LoraConfig, get_peft_model

    targets = ["q_proj", "v_proj", "down_proj"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = get_peft_model(model, LoraConfig(r=4, lora_alpha=16, target_modules=targets, **options))
        for name, parameter in made.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.3)
    made.save_pretrained(str(folder))
    return made.merge_and_unload()


class Command:
    """`tuneloop serve` in a process and a folder of its own; entered when it listens, told to stop at the end."""

    def __init__(self, folder: Path, model: str, *arguments: str, first: str = "") -> None:
        """`first`: Python that runs before the command."""
        program = f"{first}\nfrom tuneloop.cli.main import main; main()"
        self.process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-c", program, "serve", model, "--port", "0", *arguments],
            cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.lines: list[str] = []
        """What it wrote for people."""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.lines.extend(self.process.stderr)

    def __enter__(self) -> Self:
        end = time.monotonic() + 240  # the imports of a busy machine
        while self._port is None and self.process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        if self._port is None:
            self.end(signal.SIGABRT)  # faulthandler then writes where each thread stands
            raise AssertionError("".join(self.lines))
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.end()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def _port(self) -> int | None:
        found = [line for line in self.lines if "listening on port" in line]
        return int(found[0].rsplit(" ", 1)[1]) if found else None

    def end(self, how: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Ends it by a signal; its exit code and what it wrote for programs."""
        assert self.process.stdout is not None
        self.process.send_signal(how)
        out = "" if self.process.stdout.closed else self.process.stdout.read()
        self.process.stdout.close()
        code = self.process.wait(60)
        self._reader.join()
        return code, out
