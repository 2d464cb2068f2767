"""Who is answered next, and how many at once: users take turns, so that one with a hundred requests does not stop the
others."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """What a live engine takes on."""

    seats: int = 16
    """Answers at work at once."""
    waiting: int = 256
    """Answers that may wait; more are refused with Busy."""


class FairQueue(Generic[T]):
    """First come, first served within a user; users in turns. Not thread-safe: its owner holds a lock."""

    def __init__(self) -> None:
        self._users: OrderedDict[str, deque[T]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[T]:
        """All that wait, in the order in which they would be served now."""
        lines = [list(line) for line in self._users.values()]
        for turn in range(max(map(len, lines), default=0)):
            yield from (line[turn] for line in lines if turn < len(line))

    def put(self, user: str, item: T) -> None:
        """At the end of the user's line."""
        self._users.setdefault(user, deque()).append(item)
        self._count += 1

    def pop(self) -> T:
        """The next one; its user goes to the end of the users. Raises IndexError when nobody waits."""
        if not self._users:
            raise IndexError("nobody waits")
        user, line = next(iter(self._users.items()))
        item = line.popleft()
        self._count -= 1
        if line:
            self._users.move_to_end(user)
        else:
            del self._users[user]
        return item

    def take_out(self, which: Callable[[T], bool]) -> list[T]:
        """Removes and returns those that fit. Each is asked once: it may be given up by another thread meanwhile."""
        gone: list[T] = []
        for user, line in list(self._users.items()):
            kept: deque[T] = deque()
            for item in line:
                (gone if which(item) else kept).append(item)
            if kept:
                self._users[user] = kept
            else:
                del self._users[user]
        self._count -= len(gone)
        return gone
