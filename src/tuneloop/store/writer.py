"""One thread that does all the writing of a process, many things to a commit; knows no tables.

Whoever records does not wait for a disk, and SQLite's one writer at a time is one of ours. What cannot be written yet
waits; when too much waits, so does whoever has more: nothing is dropped to make room.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from itertools import groupby
from traceback import format_tb
from typing import Any, ClassVar, Generic, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

from tuneloop.core.errors import StoreError
from tuneloop.store.access import reason

R = TypeVar("R")
T = TypeVar("T")

LINGER = 0.05
"""Seconds that records wait for more of them, unless somebody waits for a commit: 20 commits a second at most."""
PATIENCE = 30.0
HOPE = 3.0
"""Seconds that whoever waits gives a database that has begun to fail: it may only be locked, or starting anew."""
_LOOK = 0.25
"""Seconds after which whoever waits is told that the database does not answer."""
_ROOM = 64 << 20
"""Characters that may wait; a record counts at least `_LEAST` of them."""
_LEAST = 1 << 10
_AT_ONCE, _HEAVY = 1_000, 4 << 20
"""Records and jobs of a commit, and about how many characters: each must get through within the database's patience."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
_TRANSIENT = (OperationalError, InterfaceError)  # locked, full, gone: the same may go well later

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Job:
    """Something to do within a transaction, for which somebody may wait."""

    write: Callable[[Connection], Any]
    future: Future[Any] = field(default_factory=Future[Any])
    weight: ClassVar[int] = 0

    def attempt(self, connection: Connection) -> tuple[Any, Exception | None]:
        """Its result or its error; an error undoes what it did and nothing else."""
        try:
            with connection.begin_nested():
                return self.write(connection), None
        except _TRANSIENT:
            raise
        except Exception as error:  # noqa: BLE001 it belongs to whoever asked for this
            return None, error

    def settle(self, result: Any, error: Exception | None) -> None:
        """Tells whoever waits, if somebody still does."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(error) if error else self.future.set_result(result)


@dataclass(frozen=True, eq=False)
class _Record(Generic[R]):
    value: R
    weight: int


class Writer(Generic[R]):
    """Writes records, and does what else is to be done, in the order in which they were given.

    engine: for writing. ready: makes a record what is written, outside of any transaction. insert: writes several, all
    or none. is_there: whether one is written already.
    """

    def __init__(
        self,
        engine: Engine,
        ready: Callable[[R], R],
        insert: Callable[[Connection, Sequence[R]], None],
        is_there: Callable[[Connection, R], bool],
    ) -> None:
        self._engine, self._ready, self._insert, self._is_there = engine, ready, insert, is_there
        self._queue: deque[_Record[R] | _Job] = deque()
        self._weight = 0
        self._urgent = 0  # jobs in the queue
        self._lock = threading.Lock()
        self._work, self._room = threading.Condition(self._lock), threading.Condition(self._lock)
        self._closing: float | None = None  # when it gives up what cannot be written
        self._trouble = ""
        self._failing = 0.0  # since when, while there is trouble
        self._refused, self._told, self._first = 0, 0, ""  # ever; of them told of; why the first untold one was
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name="tuneloop-store", daemon=True)
        self._thread.start()
        atexit.register(self.close)  # the thread is a daemon: a forgotten close must neither hang nor lose

    @property
    def waiting(self) -> int:
        """Records and jobs that are not yet taken up."""
        return len(self._queue)

    @property
    def trouble(self) -> str:
        """What stood in the way of the last attempt to write; empty when it went well."""
        return self._trouble

    @property
    def refused(self) -> int:
        """Records dropped since it was opened, because the database, or what makes them ready, refused them."""
        return self._refused

    @property
    def closed(self) -> bool:
        """Whether it takes nothing more."""
        return self._closing is not None

    def put(self, value: R, weight: int) -> None:
        """Queues a record; returns at once while there is room. weight: about how many characters it holds.

        Raises StoreError when there is still no room after PATIENCE seconds, or the writer is closed.
        """
        record = _Record(value, max(weight, _LEAST))
        with self._lock:
            self._check_open()
            if not self._room.wait_for(lambda: self._weight + record.weight <= _ROOM or not self._weight, PATIENCE):
                raise StoreError(f"the store takes no more: {self._why()}")
            self._check_open()
            self._weight += record.weight
            self._queue.append(record)
            if len(self._queue) == 1 or self._is_hurried():
                self._work.notify()

    def post(self, write: Callable[[Connection], T]) -> Future[T]:
        """Queues what is to be done within a transaction, behind what is there already; its commit comes soon.

        `write` is called again from the start where the database failed: it must not change anything else.
        """
        job = _Job(write)
        with self._lock:
            self._check_open()
            self._queue.append(job)
            self._urgent += 1
            self._work.notify()
        return job.future

    def do(self, write: Callable[[Connection], T]) -> T:
        """`post`, and waits until it is committed. Raises what `write` raised, or StoreError after PATIENCE seconds, or
        when the database has failed for HOPE seconds."""
        future, asked = self.post(write), time.monotonic()
        while True:
            try:
                return future.result(_LOOK)
            except TimeoutError:
                now = time.monotonic()
                if now - asked < PATIENCE and not (self._trouble and now - self._failing > HOPE):
                    continue
                future.cancel()
                waited = f"within {now - asked:.0f} s"
                raise StoreError(f"the store did not take a change {waited}: {self._why()}") from None
            except SQLAlchemyError as error:
                raise StoreError(f"the store refuses this: {reason(error)}") from error

    def settle(self) -> None:
        """Waits until all that was given before is committed."""
        self.do(lambda _: None)

    def flush(self) -> None:
        """`settle`; raises StoreError once for records that were refused."""
        self.settle()
        self._tell_refused()

    def close(self) -> None:
        """Writes what waits, and ends the thread. Raises StoreError when something could not be written."""
        atexit.unregister(self.close)
        with self._lock:
            if self._closing is None:
                self._closing = time.monotonic() + PATIENCE
            self._work.notify()
            self._room.notify_all()
        self._thread.join()
        self._tell_refused()

    def _tell_refused(self) -> None:
        with self._lock:
            untold, first, self._told, self._first = self._refused - self._told, self._first, self._refused, ""
        if untold:
            raise StoreError(f"answers that could not be recorded: {untold}; the first: {first}")

    def _check_open(self) -> None:
        if os.getpid() != self._pid:
            raise StoreError("this store was opened by the parent process: open it again in each process")
        if self._closing is not None:
            raise StoreError("the store is closed")

    def _why(self) -> str:
        return self._trouble or "the database is slower than what comes in"

    def _is_hurried(self) -> bool:
        return bool(self._urgent) or self._closing is not None or 2 * self._weight > _ROOM

    # -- the thread ---------------------------------------------------------------------------------------------------
    def _run(self) -> None:
        while batch := self._take():
            self._commit(batch)
            with self._lock:
                self._weight -= sum(one.weight for one in batch)
                self._room.notify_all()

    def _take(self) -> list[_Record[R] | _Job]:
        """What is to be committed next; empty when the writer is closed and all is done."""
        with self._lock:
            while not self._queue and self._closing is None:
                self._work.wait()
            end = time.monotonic() + LINGER
            while not self._is_hurried() and (left := end - time.monotonic()) > 0:
                self._work.wait(left)
            batch: list[_Record[R] | _Job] = []
            weight = 0
            while self._queue and len(batch) < _AT_ONCE and weight < _HEAVY:
                batch.append(self._queue.popleft())
                weight += batch[-1].weight
            self._urgent -= sum(isinstance(one, _Job) for one in batch)
            return batch

    def _commit(self, batch: list[_Record[R] | _Job]) -> None:
        """Writes until it is written: a database that is locked, full or gone may come back."""
        pause = _FIRST_PAUSE
        batch, unready = self._all_ready(batch)
        while True:
            try:
                with self._engine.begin() as connection:  # which may take long: what is given up meanwhile is not done
                    batch = [one for one in batch if isinstance(one, _Record) or not one.future.cancelled()]
                    refused, settled = self._write(connection, batch)
                self._trouble = ""
                break
            except SQLAlchemyError as error:  # what is wrong with one of them was settled within
                if not self._trouble:
                    _log.warning("the store cannot write, and goes on trying: %s", reason(error))
                    self._failing = time.monotonic()
                self._trouble = reason(error)
                if self._closing is not None and time.monotonic() > self._closing:
                    failed = StoreError(f"not written: {self._trouble}")
                    refused = [self._trouble for one in batch if isinstance(one, _Record)]
                    settled = [(one, None, failed) for one in batch if isinstance(one, _Job)]
                    break
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        dropped = [*unready, *refused]
        with self._lock:
            self._first = self._first or "".join(dropped[:1])
            self._refused += len(dropped)
        for job, result, error in settled:
            job.settle(result, error)

    def _all_ready(self, batch: list[_Record[R] | _Job]) -> tuple[list[_Record[R] | _Job], list[str]]:
        """The batch with its records made ready, and why some could not be."""
        ready: list[_Record[R] | _Job] = []
        refused: list[str] = []
        for one in batch:
            if isinstance(one, _Job):
                ready.append(one)
                continue
            try:
                ready.append(replace(one, value=self._ready(one.value)))
            except Exception as error:  # noqa: BLE001 nor what one is made of
                why = f"{type(error).__name__} while it was made ready"  # its message may quote the answer
                _log.error("an answer was not recorded: %s\n%s", why, "".join(format_tb(error.__traceback__)))
                refused.append(why)
        return ready, refused

    def _write(
        self, connection: Connection, batch: list[_Record[R] | _Job]
    ) -> tuple[list[str], list[tuple[_Job, Any, Exception | None]]]:
        """Within a transaction: why records were refused, and how each job ended."""
        refused: list[str] = []
        settled: list[tuple[_Job, Any, Exception | None]] = []
        for kind, group in groupby(batch, key=type):
            if kind is _Job:
                settled += [(job, *job.attempt(connection)) for job in group if isinstance(job, _Job)]
            else:
                refused += self._insert_all(connection, [one.value for one in group if isinstance(one, _Record)])
        return refused, settled

    def _insert_all(self, connection: Connection, records: Sequence[R]) -> list[str]:
        """All at once; where one is refused, each alone, so that the others are not lost with it."""
        try:
            with connection.begin_nested():
                self._insert(connection, records)
        except _TRANSIENT:
            raise
        except Exception as error:  # noqa: BLE001 what one record holds must not stop the thread
            if len(records) > 1:
                return [why for one in records for why in self._insert_all(connection, [one])]
            if self._is_there(connection, records[0]):  # committed, but the connection broke before it was said
                return []
            _log.error("an answer was not recorded: %s", reason(error))
            return [reason(error)]
        return []
