"""Connections that do not wait for ever: too many, too slow to ask, too slow to read. Knows framing only.

h11, because it bounds the size of a request's head (uvicorn's httptools protocol does not), and because its share of an
answer's time is nothing beside a model's.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from tuneloop.serve.config import LimitsConfig

SLICE, SHARE, MOST_READ = 4_096, 3.0, 1 << 19
"""Bytes of a WebSocket that are read at once, how many times as long as that took others come first, and bytes that may
wait beyond a message of the largest size."""
HEAD_SIZE = 65_536
"""Bytes of a request's head."""
PIECES, SMALLEST = 1_024, 256
"""Pieces in which the body of a request may come, and bytes for each further one."""


class Counted(h11.Connection):
    """h11's connection, but a body in very many very small chunks is none: each byte would cost as much as a request.

    Four connections that sent chunks of a byte, without a key, left nobody else an answer for minutes.
    """

    _pieces = _bytes = 0

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """As h11's."""
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._pieces = self._bytes = 0
        elif isinstance(event, h11.Data):
            self._pieces += 1
            self._bytes += len(event.data)
            if self._pieces > PIECES + self._bytes // SMALLEST:
                raise h11.RemoteProtocolError("a body in too many small pieces")
        return event


class Read(asyncio.Protocol):
    """Put before a protocol of uvicorn: a limit on how long a client may leave unread what it was sent; what it has
    not taken is dropped with the connection."""

    transport: asyncio.Transport
    loop: asyncio.AbstractEventLoop

    def __init__(self, limits: LimitsConfig, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._limits = limits
        self._unread: asyncio.TimerHandle | None = None

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
        if self._unread is not None:
            self._unread.cancel()
        super().connection_lost(exc)


class Socket(Read, WebSocketsSansIOProtocol):
    """A WebSocket of the pages, which takes a part of the loop's time at most: pings and pieces of messages, of a few
    bytes each, never reach the pages, which know a pace."""

    def __init__(self, limits: LimitsConfig, *arguments: Any, **options: Any) -> None:
        super().__init__(limits, *arguments, **options)
        self._rest = bytearray()
        self._turn: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        self._rest += data
        if len(self._rest) > self._limits.body_bytes + MOST_READ:
            self.transport.abort()
        elif self._turn is None:
            self._take()

    def _take(self) -> None:
        """The next slice, and after a pause the one behind it."""
        self._turn = None
        data = bytes(self._rest[:SLICE])
        del self._rest[:SLICE]
        begun = self.loop.time()
        super().data_received(data)
        if self.transport.is_closing():
            self._rest.clear()
        elif self._rest:
            self.transport.pause_reading()
            self._turn = self.loop.call_later(SHARE * (self.loop.time() - begun), self._take)
        elif not self.read_paused:
            self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._turn is not None:
            self._turn.cancel()
        super().connection_lost(exc)


class Patient(Read, H11Protocol):
    """HTTP, with limits on connections and on the time until a request's head is there, too."""

    def __init__(self, limits: LimitsConfig, *arguments: Any, **options: Any) -> None:
        super().__init__(limits, *arguments, **options)
        self.conn = Counted(h11.SERVER, HEAD_SIZE)
        self._head: asyncio.TimerHandle | None = None

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

    def send_400_response(self, msg: str) -> None:
        """As uvicorn's, also where the answer was given already and the rest of the request is no HTTP."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.abort()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # uvicorn's keep-alive timer ends with the first byte of the next request; this one with its head
        if not self.transport.is_closing():
            waiting = self.timeout_keep_alive + self._limits.read_timeout
            self._head = self._head or self.loop.call_later(waiting, self._late)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        if self._head is not None:  # the socket is another protocol's from here on
            self._head.cancel()
        super().handle_websocket_upgrade(event)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._head is not None:
            self._head.cancel()
        super().connection_lost(exc)

    def _late(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()
