"""A service under clients of every kind for some minutes: does it grow, does it slow down? python -m benchmarks.soak

The real command in a process of its own, two adapters whose names move, eight clients that never stop, and at the end
200 slow or broken ones at once. Prints a table, writes soak.svg, and ends with 1 where memory grew in the second half.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import matplotlib.pyplot as plt
import numpy as np
import psutil
import torch

from tests.serving import Command, broken, random_lora, tune_run
from tuneloop.flows import serving
from tuneloop.models.config import ModelConfig
from tuneloop.models.find import find_base
from tuneloop.models.load import load_model

CAPPED = "from tuneloop.generate import batching; batching.REMEMBERED = {share}"
"""The prefix cache is full early: its growth up to its budget is no leak."""
REMEMBERED = 64 << 20
EVERY = 5.0
"""Seconds between two samples."""
NOTICED = 0.01
"""Growth in the second half, as a share of what was there, below which nothing is said."""
WORDS = "Why does the river freeze in winter and who told you so 为什么 天空 是 蓝色 的 请 说明".split()


class Load:
    """The clients of a service, until `over`; notes what good ones waited for."""

    def __init__(self, url: str, key: dict[str, str], admin: dict[str, str], name: str) -> None:
        self.url, self.key, self.admin, self.name = url, key, admin, name
        self.over = threading.Event()
        self.waited: list[float] = []
        """Seconds of whole answers to good clients, since it was last taken."""
        self.counts: dict[str, int] = {}
        self.wrong: list[str] = []

    def start(self) -> list[threading.Thread]:
        """A thread for each client."""
        made = (self.good, self.streaming, self.talking, self.voting, self.slow, self.leaving, self.broken, self.moving)
        threads = [threading.Thread(target=self._run, args=[client, number]) for number, client in enumerate(made)]
        for thread in threads:
            thread.start()
        return threads

    def _run(self, client: Callable[[httpx.Client, random.Random], None], seed: int) -> None:
        draw, name = random.Random(seed), client.__name__
        with httpx.Client(base_url=self.url, timeout=60, headers=self.key) as http:
            while not self.over.is_set():
                try:
                    client(http, draw)
                    self.counts[name] = self.counts.get(name, 0) + 1
                except (httpx.HTTPError, AssertionError) as error:
                    self.wrong.append(f"{name}: {type(error).__name__} {error}")
                    time.sleep(0.1)

    def ask(self, draw: random.Random, **fields: Any) -> dict[str, Any]:
        """A question that nobody asked before."""
        text = " ".join(draw.choices(WORDS, k=draw.randrange(5, 60)))
        model = draw.choice([self.name, "one", "two"])
        user = f"user {draw.randrange(10**9)}"
        body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 24, "user": user}
        return {**body, **fields}

    def halves(self, draw: random.Random) -> Iterator[bytes]:
        """What broken clients send."""
        key = "".join(f"{name}: {value}\r\n" for name, value in self.key.items())
        return broken("localhost", self.ask(draw, stream=True, max_tokens=400), key)

    def good(self, http: httpx.Client, draw: random.Random) -> None:
        began = time.perf_counter()
        answer = http.post("/v1/chat/completions", json=self.ask(draw))
        self.waited.append(time.perf_counter() - began)
        assert answer.status_code == 200, answer.text

    def streaming(self, http: httpx.Client, draw: random.Random) -> None:
        began = time.perf_counter()
        with http.stream("POST", "/v1/chat/completions", json=self.ask(draw, stream=True)) as answer:
            assert answer.status_code == 200
            assert answer.read().endswith(b"data: [DONE]\n\n")
        self.waited.append(time.perf_counter() - began)

    def talking(self, http: httpx.Client, draw: random.Random) -> None:
        """A conversation of four turns."""
        body = self.ask(draw)
        for _ in range(4):
            answer = http.post("/v1/chat/completions", json=body)
            assert answer.status_code == 200, answer.text
            said = answer.json()["choices"][0]["message"]["content"]
            body["messages"] += [{"role": "assistant", "content": said}, {"role": "user", "content": "And then?"}]

    def voting(self, http: httpx.Client, draw: random.Random) -> None:
        signed = http.post("/v1/chat/completions", json=self.ask(draw)).headers["X-Answer-Id"]
        vote = {"answer": signed, "thumb": draw.choice([-1, 1]), "comment": "word " * draw.randrange(100), "user": "u"}
        answer = http.post("/v1/feedback", json=vote)
        assert answer.status_code == 200, answer.text

    def slow(self, http: httpx.Client, draw: random.Random) -> None:
        """Takes a long stream in drops."""
        with http.stream("POST", "/v1/chat/completions", json=self.ask(draw, stream=True, max_tokens=200)) as answer:
            for _ in answer.iter_raw(512):
                time.sleep(0.05)

    def leaving(self, http: httpx.Client, draw: random.Random) -> None:
        """Hangs up after some of a stream, and before any of a whole answer."""
        with http.stream("POST", "/v1/chat/completions", json=self.ask(draw, stream=True, max_tokens=200)) as answer:
            next(answer.iter_raw(200))
        with suppress(httpx.ReadTimeout):
            http.post("/v1/chat/completions", json=self.ask(draw, max_tokens=200), timeout=0.02)

    def broken(self, http: httpx.Client, draw: random.Random) -> None:
        """Bytes that are no HTTP, halves of requests, bodies that are too large or nonsense."""
        with socket.create_connection(_place(self.url), 10) as connection:
            connection.sendall(next(itertools.islice(self.halves(draw), draw.randrange(8), None)))
        for size, status in ((2 << 20, 413), (900 << 10, 400)):
            body = self.ask(draw, messages=[{"role": "user", "content": "x " * (size // 2)}])
            with suppress(httpx.WriteError, httpx.ReadError):  # cut off while it still sends
                assert http.post("/v1/chat/completions", json=body).status_code == status
        assert http.post("/v1/chat/completions", content=b"[" * 10_000).status_code in (400, 415)
        assert http.get(f"/{draw.random()}").status_code in (401, 404)
        assert http.get("/v1/models", headers={"Authorization": f"Bearer tl-{draw.random()}"}).status_code == 401

    def moving(self, http: httpx.Client, draw: random.Random) -> None:
        """Names move between adapters."""
        body = {"name": draw.choice(["one", "two"]), "run": f"run-{draw.randrange(3)}"}
        assert http.post("/admin/adapters", json=body, headers=self.admin).status_code == 200
        time.sleep(0.5)


class Watch:
    """Samples of a process, every few seconds; USS is memory that is its own, whoever else maps the same files."""

    NAMES = ("minute", "USS MiB", "RSS MiB", "threads", "files", "store MiB", "p50 ms", "p95 ms", "answers")

    def __init__(self, process: int, folder: Path, load: Load) -> None:
        self._process, self._folder, self._load = psutil.Process(process), folder, load
        self._began = time.monotonic()
        self.samples: list[list[float]] = []

    def look(self) -> list[float]:
        """One more sample."""
        memory = self._process.memory_full_info()
        kept = sum(path.stat().st_size for path in self._folder.glob("tuneloop.db*"))
        waited, self._load.waited = self._load.waited, []
        self.samples.append([
            (time.monotonic() - self._began) / 60, memory.uss / 2**20, memory.rss / 2**20, self._process.num_threads(),
            self._process.num_fds(), kept / 2**20, *middle(waited), len(waited),
        ])  # fmt: skip
        return self.samples[-1]

    def growth(self) -> tuple[float, float]:
        """MiB an hour in the second half by least squares, and half of its 95 % interval.

        The interval takes samples for independent, which they are not quite: it is a little too narrow.
        """
        half = np.array(self.samples[len(self.samples) // 2 :])
        minutes, memory = half[:, 0], half[:, 1]
        centred = minutes - minutes.mean()
        slope = float(centred @ memory / (centred @ centred))
        rest = memory - memory.mean() - slope * centred
        error = math.sqrt(float(rest @ rest) / max(1, len(half) - 2) / float(centred @ centred))
        return 60 * slope, 60 * 1.96 * error


def middle(seconds: Sequence[float]) -> tuple[float, float]:
    """Median and 95th percentile, in ms."""
    if len(seconds) < 2:
        return float("nan"), float("nan")
    return 1e3 * statistics.median(seconds), 1e3 * statistics.quantiles(seconds, n=20)[-1]


def slow_ones(load: Load, count: int, seconds: float) -> tuple[float, float]:
    """What a good client waits for (p50, p95 in ms) while so many slow or broken ones hang on."""
    made = load.halves(random.Random(8))
    with ExitStack() as stack:
        for _ in range(count):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(_place(load.url))
            connection.sendall(next(made))
        return alone(load, seconds)


def alone(load: Load, seconds: float) -> tuple[float, float]:
    """The same with one good client and nobody else."""
    load.waited, draw, end = [], random.Random(9), time.monotonic() + seconds
    with httpx.Client(base_url=load.url, timeout=60, headers=load.key) as http:
        while time.monotonic() < end:
            load.good(http, draw)
    return middle(load.waited)


def soak(command: Command, load: Load, folder: Path, minutes: float) -> Watch:
    """All clients for so many minutes; prints a line every half minute or so."""
    watch, threads = Watch(command.process.pid, folder, load), load.start()
    print(*(f"{name:>10}" for name in Watch.NAMES), flush=True)
    turns = int(minutes * 60 / EVERY)
    for turn in range(turns):
        time.sleep(EVERY)
        sample = watch.look()
        if turn % max(1, turns // 20) == 0 or turn == turns - 1:
            print(*(f"{value:10.1f}" for value in sample), flush=True)
    load.over.set()
    for thread in threads:
        thread.join()
    return watch


def prepared(folder: Path, model: str) -> tuple[dict[str, str], dict[str, str]]:
    """Three adapters as runs, and the headers of a chatting and an administering client."""
    base = find_base(ModelConfig(base=model))
    for number in range(3):
        loaded = load_model(base, torch.float32, seed=0, device="cpu")
        random_lora(tune_run(folder / "runs", f"run-{number}"), loaded, number)
    here = [f"serve.store=sqlite:///{folder}/tuneloop.db", f"serve.secret_file={folder}/tuneloop.secret"]
    config = serving.settings(None, here)
    keys = [serving.create_key(config, "soak", roles)["key"] for roles in (["chat", "rate"], ["admin"])]
    return {"Authorization": f"Bearer {keys[0]}"}, {"Authorization": f"Bearer {keys[1]}"}


def draw(watch: Watch, path: Path) -> None:
    """Memory and latency over time."""
    figure, axes = plt.subplots(2, sharex=True, figsize=(7, 4), layout="constrained")
    samples = np.array(watch.samples)
    for axis, columns in zip(axes, ((1, 2), (6, 7)), strict=True):
        for column in columns:
            axis.plot(samples[:, 0], samples[:, column], label=Watch.NAMES[column])
        axis.set_ylim(0)
        axis.legend(loc="lower right")
    axes[1].set_xlabel("minutes")
    figure.savefig(path)


def _place(url: str) -> tuple[str, int]:
    parsed = httpx.URL(url)
    return parsed.host, parsed.port or 80


def main() -> None:
    """Soaks, and says what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--slow", type=int, default=200, help="slow or broken clients at the end")
    parser.add_argument("--svg", type=Path, default=Path("soak.svg"))
    asked = parser.parse_args()
    share = REMEMBERED / psutil.virtual_memory().available
    limits = json.dumps({"requests_per_minute": 10**6, "feedback_per_minute": 10**6, "read_timeout": 5})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        key, admin = prepared(folder, asked.model)
        adapters = [argument for pair in ("one=run-0", "two=run-1") for argument in ("--adapter", pair)]
        first = CAPPED.format(share=share)
        with Command(folder, asked.model, *adapters, "--set", f"serve.limits={limits}", first=first) as command:
            load = Load(command.url, key, admin, Path(asked.model).name)
            watch = soak(command, load, folder, asked.minutes)
            before, meanwhile = alone(load, 10), slow_ones(load, asked.slow, 10)
        slope, interval = watch.growth()
        last = watch.samples[-1][1]
        grows = slope > interval and slope * asked.minutes / 120 > NOTICED * last
        print(f"requests     {load.counts}; wrong: {len(load.wrong)} {load.wrong[:3]}")
        said = "GROWS" if grows else "no growth"
        print(f"memory       {slope:+.1f} ± {interval:.1f} MiB/h in the second half: {said}")
        print(f"a good client, p50 / p95 ms: {before[0]:.0f} / {before[1]:.0f} alone, "
              f"{meanwhile[0]:.0f} / {meanwhile[1]:.0f} beside {asked.slow} slow or broken ones")  # fmt: skip
        draw(watch, asked.svg)
    sys.exit(int(grows or bool(load.wrong)))


if __name__ == "__main__":
    main()
