"""What recording answers costs, on SQLite and on a PostgreSQL server that this starts: python -m benchmarks.store

Half of the rows are Chinese (question and answer together 650 characters), half English (1,300), one in ten with
private data. Everything is measured in one run.
"""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import numpy as np

from benchmarks.data_scale import sentence
from tests import postgres_server
from tests.unit.store.conftest import new_database
from tuneloop.core.conversation import Message
from tuneloop.store import database, records, store
from tuneloop.store.records import Feedback, Interaction
from tuneloop.store.redaction import Redaction
from tuneloop.store.store import Store

SECRET = bytes(32)
ANSWERS, VOTES, PROCESSES = 10_000, 200, 3
PER_SECOND, SECONDS, ROUNDS = 50, 1.5, 8
LAYER = np.ones((384, 384), np.float32)
OTHER = """
import sys
from benchmarks import store as bench
from tuneloop.store import store
with store.open(sys.argv[1], bench.SECRET) as opened:
    answers = bench.made(opened, bench.ANSWERS // 4)
    opened.flush()
    print("ready", flush=True)
    sys.stdin.readline()
    for one in answers:
        opened.record(one)
"""


def made(opened: Store, count: int) -> list[Interaction]:
    """Answers that could have been given."""
    rng, user, out = random.Random(0), opened.pseudonym("alice"), list[Interaction]()
    texts = [(sentence(rng, number % 2 == 0, 600), sentence(rng, number % 2 == 0, 700)) for number in range(200)]
    for number in range(count):
        question, answer = texts[number % len(texts)]
        private = " 电话13812345678" if number % 10 == 0 else ""
        prompt = (Message("system", "Answer in one paragraph."), Message("user", question + private))
        out.append(Interaction(
            records.new_id(), datetime.now(UTC), user, "desk", prompt, answer, "stop", version="sha256:" + "0" * 64,
            adapter="sha256:" + "1" * 64, decoding="sha256:" + "2" * 64, first_ms=30.0, total_ms=900.0,
            prompt_tokens=300, completion_tokens=350,
        ))  # fmt: skip
    return out


def recording(opened: Store) -> dict[str, float]:
    """As fast as it goes: answers a second; µs for each, of the caller and of the processor in all threads."""
    answers = made(opened, ANSWERS)
    opened.flush()
    began, cpu = time.perf_counter(), time.process_time()
    for one in answers:
        opened.record(one)
    queued = time.perf_counter() - began
    opened.flush()
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    each = 1e6 / ANSWERS
    return {"answers/s": ANSWERS / took, "caller, µs": queued * each, "processor, µs": cpu * each}


def voting(opened: Store) -> dict[str, float]:
    """Votes, each committed when it returns: one after the other, then from 16 threads at once."""
    (one,) = made(opened, 1)
    opened.record(one)
    took: list[float] = []

    def vote(number: int) -> None:
        began = time.perf_counter()
        opened.feedback(Feedback(one.id, opened.pseudonym(str(number)), datetime.now(UTC), thumb=1, comment="good"))
        took.append(1e3 * (time.perf_counter() - began))

    for number in range(VOTES):
        vote(number)
    cuts = statistics.quantiles(took, n=20)
    began = time.perf_counter()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(vote, range(5 * VOTES)))
    together = 5 * VOTES / (time.perf_counter() - began)
    return {"vote, ms (p50)": cuts[9], "vote, ms (p95)": cuts[18], "votes/s, 16 threads": together}


def checking(opened: Store) -> dict[str, float]:
    """To check an API key against the database."""
    key = opened.keys.create("a", ["chat"])
    began = time.perf_counter()
    for _ in range(500):
        opened.keys.verify(key)
    return {"key, µs": 1e6 * (time.perf_counter() - began) / 500}


def serving(opened: Store) -> dict[str, float]:
    """By how much a thread that computes as small models do is slower while it records, side by side."""
    answers = iter(made(opened, int(PER_SECOND * SECONDS + 2) * ROUNDS))
    slower: list[float] = []
    for number in range(ROUNDS):
        done: dict[bool, int] = {}
        for record in (True, False) if number % 2 else (False, True):
            done[record] = steps(opened, answers if record else iter(()))
        slower.append(1 - done[True] / done[False])
    return {f"slower at {PER_SECOND}/s, %": 100 * statistics.median(slower)}


def steps(opened: Store, answers: Iterator[Interaction]) -> int:
    """How many steps fit into SECONDS, recording an answer every 1 / PER_SECOND."""
    done, due, began = 0, 0.0, time.perf_counter()
    while (now := time.perf_counter() - began) < SECONDS:
        for _ in range(20):
            _ = LAYER @ LAYER
        done += 1
        if now >= due:
            due += 1 / PER_SECOND
            for one in answers:
                opened.record(one)
                break
    return done


def processes(url: str) -> dict[str, float]:
    """Several processes on one database."""
    command, pipe = [sys.executable, "-c", OTHER, url], subprocess.PIPE
    others = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(PROCESSES)]
    for one in others:
        assert one.stdout is not None
        one.stdout.readline()
    began = time.perf_counter()
    for one in others:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    for one in others:
        one.communicate()
    return {f"answers/s, {PROCESSES} processes": PROCESSES * (ANSWERS // 4) / (time.perf_counter() - began)}


def measured(url: str) -> dict[str, float]:
    """All figures of one process on a new database."""
    with store.open(url, SECRET, None) as opened:
        unmasked = recording(opened)
    with store.open(url, SECRET, Redaction()) as opened:
        found = recording(opened) | {"processor, µs, no masking": unmasked["processor, µs"]}
        return found | voting(opened) | checking(opened) | serving(opened)


def main() -> None:
    """Measures and prints."""
    with tempfile.TemporaryDirectory() as folder, postgres_server.server() as server:
        urls = {"SQLite": f"sqlite:///{folder}/full.db", "PostgreSQL": new_database(server)}
        for name, url in urls.items():
            told(name, measured(url) | processes(url))
        database._SQLITE["synchronous"] = "NORMAL"
        told("SQLite, synchronous=NORMAL", measured(f"sqlite:///{folder}/normal.db"))


def told(name: str, figures: dict[str, float]) -> None:
    """Prints the figures of a database."""
    print(name, *(f"{figure:>28} {value:10,.1f}" for figure, value in figures.items()), sep="\n", flush=True)


if __name__ == "__main__":
    main()
