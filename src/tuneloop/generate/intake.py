"""Answers that wait for their turn, and a thread that makes their prompts ready; knows no model.

A prompt of a megabyte takes a second to tokenise. In the worker's thread that second would stop everybody's tokens.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from tuneloop.generate.queue import FairQueue
from tuneloop.generate.rows import Row


class Intake:
    """First the rows whose prompts are not read yet, then those that can begin; users take turns at both.

    ready: makes a row ready, or refuses it (False). changed: the lock of all of it, held by whoever calls a method;
    it is told when a row has become ready.
    """

    def __init__(self, ready: Callable[[Row], bool], changed: threading.Condition) -> None:
        self._ready, self._changed = ready, changed
        self._unread: FairQueue[Row] = FairQueue()
        self._read: FairQueue[Row] = FairQueue()
        self._in_hand: Row | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="tuneloop-prompts", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._unread) + len(self._read) + (self._in_hand is not None)

    def __iter__(self) -> Iterator[Row]:
        yield from self._read
        yield from [self._in_hand] if self._in_hand is not None else []
        yield from self._unread

    @property
    def next(self) -> Row | None:
        """Whose turn it is, of those that can begin."""
        return next(iter(self._read), None)

    def put(self, row: Row) -> None:
        """At the end of its user's line."""
        self._unread.put(row.ask.user, row)
        self._changed.notify_all()

    def pop(self) -> None:
        """`next` begins."""
        self._read.pop()

    def take_out(self, which: Callable[[Row], bool]) -> list[Row]:
        """Removes and returns those that fit; the one whose prompt is being read stays until that is done."""
        return [*self._read.take_out(which), *self._unread.take_out(which)]

    def close(self) -> None:
        """Ends the thread; call it without the lock. Rows that wait stay for `take_out`."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (self._closed or len(self._unread)):
                    self._changed.wait()
                if self._closed:
                    return
                row = self._in_hand = self._unread.pop()
            ready = self._ready(row)
            with self._changed:
                self._in_hand = None
                if ready:
                    self._read.put(row.ask.user, row)
                self._changed.notify_all()
