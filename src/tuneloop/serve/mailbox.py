"""Pieces of answers from the engine's worker thread to the event loop, with a bound. Knows nothing of HTTP."""

from __future__ import annotations

import asyncio
from collections import deque

from tuneloop.generate.live import Piece


class Mailbox:
    """Pieces of several answers, in the order in which they came. `put` is for the worker, all else for the loop.

    `full`: more than `most` pieces wait, because whoever should take them does not.
    """

    def __init__(self, most: int) -> None:
        self._loop, self._there = asyncio.get_running_loop(), asyncio.Event()
        self._pieces: deque[tuple[int, Piece]] = deque()
        self._most, self._signalled = most, False

    def put(self, place: int, piece: Piece) -> None:
        """Called by the engine's worker: never waits. One wake-up of the loop serves all pieces until it looks."""
        self._pieces.append((place, piece))
        if not self._signalled:
            self._signalled = True
            self._loop.call_soon_threadsafe(self._there.set)

    @property
    def full(self) -> bool:
        return len(self._pieces) > self._most

    async def take(self, patience: float) -> list[tuple[int, Piece]]:
        """All that waits, at least one piece; none after so many seconds without any."""
        try:
            async with asyncio.timeout(patience):
                await self._there.wait()
        except TimeoutError:
            return []
        self._there.clear()
        self._signalled = False  # before looking: a piece that comes meanwhile wakes the loop once too often, not never
        taken: list[tuple[int, Piece]] = []
        while self._pieces:
            taken.append(self._pieces.popleft())
        return taken
