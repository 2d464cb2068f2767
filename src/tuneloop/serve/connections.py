"""Connections that do not wait for ever: too many, too slow to ask, too slow to read. Knows HTTP's framing only.

h11, because it bounds the size of a request's head (uvicorn's httptools protocol does not), and because its share of an
answer's time is nothing beside a model's.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from tuneloop.serve.config import LimitsConfig


class Patient(H11Protocol):
    """uvicorn's protocol with limits: on connections, on the time until a request's head is there, and on how long
    a client may leave its answer unread (what it has not taken is dropped with the connection)."""

    def __init__(self, limits: LimitsConfig, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._limits = limits
        self._head: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections:
            transport.abort()
            return
        self._head = self.loop.call_later(self._limits.read_timeout, self._late)

    def handle_events(self) -> None:
        super().handle_events()
        begun = self.cycle is not None and not self.cycle.response_complete
        if begun and self._head is not None:  # a request's head is there; its body is timed further in
            self._head.cancel()
            self._head = None

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # uvicorn's keep-alive timer ends with the first byte of the next request; this one with its head
        if not self.transport.is_closing():
            waiting = self.timeout_keep_alive + self._limits.read_timeout
            self._head = self._head or self.loop.call_later(waiting, self._late)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(self._limits.write_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head, self._unread):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def _late(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()


def protocol(limits: LimitsConfig) -> Any:
    """What uvicorn makes a protocol of each connection with."""
    return partial(Patient, limits)
