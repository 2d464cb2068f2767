"""Many clients at once on the real app, the real engine and real adapters: nothing is lost, nothing is mixed up."""

from __future__ import annotations

import gc
import itertools
import json
import random
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import torch
from serving import SECONDS, around, listening, random_lora, tune_run

from tuneloop.core.conversation import Message
from tuneloop.generate.batching import ContinuousEngine, Limits
from tuneloop.generate.engine import Decoding, Request
from tuneloop.generate.transformers_engine import TransformersEngine
from tuneloop.models.config import ModelConfig
from tuneloop.models.find import find_base
from tuneloop.models.load import load_model
from tuneloop.render.load import renderer_of

NAMES, RUNS, TOKENS = ("one", "two", "three"), ("r0", "r1", "r2"), 16
QUESTIONS = [f"What is {number} and {'some more of ' * (number % 4)}that?" for number in range(12)]


@dataclass(frozen=True)
class Told:
    """What a client got of an answer; `cut`: it hung up."""

    name: str
    question: str
    answer: str
    signed: str
    began: float
    ended: float
    cut: bool


class Moves:
    """Names that stand for one run after the other, and when each of them may have."""

    def __init__(self, http: httpx.Client, admin: dict[str, str]) -> None:
        self._http, self._admin = http, admin
        self.stays: dict[str, list[list[Any]]] = {name: [] for name in NAMES}
        """[digest, from, until] by the clock of the test, both taken generously."""

    def move(self, name: str, run: str) -> None:
        began = time.monotonic()
        answer = self._http.post("/admin/adapters", json={"name": name, "run": run}, headers=self._admin)
        assert answer.status_code == 200, answer.text
        if self.stays[name]:
            self.stays[name][-1][2] = time.monotonic()
        self.stays[name].append([answer.json()["digest"], began, float("inf")])

    def fits(self, told: Told, digest: str | None) -> bool:
        """Whether the name stood for this version at some time of the request."""
        stays = self.stays[told.name]
        return any(one == digest and start < told.ended and end > told.began for one, start, end in stays)


def ask(http: httpx.Client, turn: int) -> Told:
    """One request: every third a stream, every ninth of which is left after its first words."""
    name, question, cut = NAMES[turn % 3], QUESTIONS[turn * 7 % len(QUESTIONS)], turn % 9 == 4
    body = {"model": name, "messages": [{"role": "user", "content": question}], "max_tokens": TOKENS}
    began, said = time.monotonic(), ""
    if turn % 3 != 1:
        answer = http.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        said, signed = answer.json()["choices"][0]["message"]["content"], answer.headers["X-Answer-Id"]
        return Told(name, question, said, signed, began, time.monotonic(), False)
    with http.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as answer:
        assert answer.status_code == 200
        signed = answer.headers["X-Answer-Id"]
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                (choice,) = json.loads(line[6:])["choices"]
                said += choice["delta"].get("content", "")
                if cut and said:
                    break
    return Told(name, question, said, signed, began, time.monotonic(), cut)


def all_asked(url: str, key: dict[str, str], count: int) -> list[Told]:
    """So many requests by eight clients."""
    turns, lock = iter(range(count)), threading.Lock()

    def client() -> list[Told]:
        found: list[Told] = []
        with httpx.Client(base_url=url, timeout=SECONDS, headers=key) as http:
            while True:
                with lock:
                    turn = next(turns, None)
                if turn is None:
                    return found
                found.append(ask(http, turn))

    with ThreadPoolExecutor(8) as pool:
        results = [pool.submit(client) for _ in range(8)]
    return list(itertools.chain.from_iterable(result.result() for result in results))


def test_500_requests_of_8_clients_while_3_adapters_move(model_folder: Callable[..., Path], tmp_path: Path) -> None:
    """Each answer is, letter by letter, what the adapter that its record names gives alone; its name stood for it."""
    base = find_base(ModelConfig(base=str(model_folder("llama"))))
    renderer = renderer_of(base)
    asked = [Request((Message("user", text),)) for text in QUESTIONS]

    def loaded() -> Any:
        return load_model(base, torch.float32, seed=0, device="cpu").eval()

    alone: list[list[str]] = []
    for seed, run in enumerate(RUNS):
        merged = random_lora(tune_run(tmp_path / "runs", run), loaded(), seed)
        found = TransformersEngine(merged, renderer).answer(asked, Decoding(TOKENS))
        alone.append([completion.text for completion in found])
    assert all(len(set(texts)) == 3 for texts in zip(*alone, strict=True)), "the adapters answer each question apart"

    engine = ContinuousEngine(loaded, renderer, base, "toy", Limits(seats=6))
    service = around(engine, tmp_path, limits={"requests_per_minute": 100_000})
    store, lent = service.store, list[weakref.ref[Any]]()
    key, admin = ({"Authorization": f"Bearer {store.keys.create('test', [role])}"} for role in ("chat", "admin"))
    with listening(service) as (url, _), httpx.Client(base_url=url, timeout=SECONDS) as http:
        moves, over, draw = Moves(http, admin), threading.Event(), random.Random(4)
        for name, run in zip(NAMES, RUNS, strict=True):
            moves.move(name, run)
        digest_of = {moves.stays[name][0][0]: number for number, name in enumerate(NAMES)}

        def keep_moving() -> None:
            while not over.is_set():
                parts = [part for one in [*engine._mixed._parts.values()] for part in [*one.values()]]
                lent.extend(weakref.ref(part.a_rI) for part in parts)
                moves.move(draw.choice(NAMES), draw.choice(RUNS))

        mover = threading.Thread(target=keep_moving)
        mover.start()
        answers = all_asked(url, key, 500)
        over.set()
        mover.join()
        assert sum(map(len, moves.stays.values())) > 12, "they did move"
        for name in NAMES:
            assert http.delete(f"/admin/adapters/{name}", headers=admin).status_code == 200
        assert [served.name for served in engine.models()] == ["toy"]
        gc.collect()
        assert lent and not any(one() is not None for one in lent), "what was dropped is gone from memory"
        store.flush()
        assert len(answers) == 500 and sum(told.cut for told in answers) > 40
        for told in answers:
            record = store.answer(store.check(told.signed) or "")
            assert record is not None and moves.fits(told, record.version)
            want = alone[digest_of[record.version or ""]][QUESTIONS.index(told.question)]
            if told.cut:
                assert want.startswith(told.answer) and want.startswith(record.answer)
            else:
                assert (told.answer, record.answer) == (want, want)
