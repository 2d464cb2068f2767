"""Threads that ask the store on behalf of the event loop, so that a database that hangs stops nobody else.

Not the loop's own threads: those are few, and other work waits for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tuneloop.serve.errors import store_unavailable

T = TypeVar("T")
THREADS, MOST = 4, 64
"""Questions at a time, and those under way or waiting; more are refused."""


class Clerks:
    """A few threads of one purpose."""

    def __init__(self, name: str) -> None:
        self._threads = ThreadPoolExecutor(THREADS, name)
        self._under_way = 0

    async def ask(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises. Raises Refused (503) where too many wait already."""
        if self._under_way >= MOST:
            raise store_unavailable("the store does not answer; too many wait for it")
        self._under_way += 1
        asked = asyncio.wrap_future(self._threads.submit(work))
        asked.add_done_callback(self._done)
        return await asked

    def close(self) -> None:
        """Takes no more; does not wait for those under way, which end with the store's own patience."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _done(self, _: object) -> None:
        self._under_way -= 1
