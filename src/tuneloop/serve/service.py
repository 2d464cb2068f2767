"""All that the routes share: engine, names, store, keys, rates, figures; and whether the service is still open."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

from fastapi import Depends, Request

from tuneloop.core.errors import StoreError
from tuneloop.generate.live import LiveEngine
from tuneloop.serve.adapters import Roster
from tuneloop.serve.auth import Doorkeeper
from tuneloop.serve.clerks import Clerks
from tuneloop.serve.config import ServeConfig
from tuneloop.serve.limits import Rate
from tuneloop.serve.meters import Meters
from tuneloop.serve.sessions import Sessions

if TYPE_CHECKING:
    import numpy as np

    from tuneloop.serve.answering import Answering
    from tuneloop.store.records import Feedback, Interaction
    from tuneloop.store.store import Store


LOG = logging.getLogger("tuneloop.serve")
MOST_UNWRITTEN = 1_000
PATIENCE = 10.0
"""Seconds that a service gives its database for a statement. A hanging one must not hold threads for ever."""


class Embedder(Protocol):
    """A sentence encoder."""

    @property
    def name(self) -> str: ...

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [N, D], each of length 1."""
        ...

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, as far as they are read."""
        ...


@dataclass(eq=False)
class Service:
    """One service. `runs`: the folder under which admins may name runs; None lets them name none."""

    config: ServeConfig
    engine: LiveEngine
    roster: Roster
    store: Store
    doorkeeper: Doorkeeper
    embedder: Embedder | None = None
    runs: Path | None = None
    draining: bool = False
    """No new answers are begun; those under way end."""
    under_way: set[Answering] = field(default_factory=set["Answering"])
    started: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        limits = self.config.limits
        self.meters = Meters(self.engine, lambda: self.store.refused)
        self.requests = Rate(limits.requests_per_minute, "requests")
        self.votes = Rate(limits.feedback_per_minute, "votes")
        self.sessions = Sessions(self.store, self.doorkeeper)
        self.encoder_turn, self.encoding = asyncio.Lock(), 0
        self.hosts = frozenset({"localhost", self.config.host.lower(), *map(str.lower, self.config.hosts)})

        self.clerks = Clerks("store")
        self._recorder = ThreadPoolExecutor(1, "recorder")
        self._unwritten, self._counting = 0, threading.Lock()

    def drain(self) -> None:
        """Begins nothing more, and lets answers under way end. A signal handler calls it."""
        self.draining = True
        self.roster.stop()

    def record(self, one: Interaction) -> None:
        """Hands an answer to the store from a thread of its own: it waits there while the database does not answer."""
        with self._counting:
            self._unwritten += 1
        self._recorder.submit(self.store.record, one).add_done_callback(self._recorded)

    def vote(self, one: Feedback) -> None:
        """Stores a vote behind all answers that were given before: a client may be faster than our own thread.

        Raises UnknownAnswer, StoreError.
        """
        try:
            self._recorder.submit(int).result(PATIENCE)
        except TimeoutError:
            raise StoreError("no vote is taken while answers wait for room in the store's queue") from None
        self.store.feedback(one)

    def _recorded(self, done: Future[None]) -> None:
        with self._counting:
            self._unwritten -= 1
        error = done.exception()
        if error is not None:
            LOG.error("an answer was not recorded: %s", error)
            self.meters.unrecorded()

    @property
    def behind(self) -> bool:
        """Whether the store takes nothing just now: then no more is answered, because answers would not be kept."""
        return self._unwritten > MOST_UNWRITTEN

    def close(self) -> None:
        """Ends the worker, then writes what is left to write."""
        self.engine.close()
        self.doorkeeper.close()
        self.clerks.close()
        self._recorder.shutdown()
        self.store.close()


def _here(request: Request) -> Service:
    return request.app.state.service


Here = Annotated[Service, Depends(_here)]
"""The service of a route."""
