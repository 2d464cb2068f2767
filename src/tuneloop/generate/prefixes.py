"""Keys and values of conversations that were answered, for those that go on or begin alike. Knows nothing of requests.

An entry belongs to one model by a digest of base and adapter: what another adapter computed is never reused, and an
adapter that comes back under the same name with other weights has another digest.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from tuneloop.generate.slots import Parts

SHORTEST = 16
"""Tokens below which computing again is cheaper than copying."""


class PrefixCache:
    """What the last rows left behind, within `budget` bytes; the longest unused goes first.

    The token ids of each model's entries are kept in order: what has most in common with others stands beside them, so
    that neither looking nor adding becomes slower with thousands of entries. No entry is the beginning of another.
    """

    def __init__(self, budget: int) -> None:
        self.budget, self.bytes = budget, 0
        self._entries: OrderedDict[tuple[str, bytes], tuple[Parts, int]] = OrderedDict()
        self._ordered: dict[str, list[bytes]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, model: str, ids: Sequence[int]) -> tuple[int, Parts]:
        """(known tokens, their keys and values): of the entry that begins with most of `ids`; one at least is new."""
        wanted, ordered = _bytes(ids[:-1]), self._ordered.get(model, [])
        at = bisect_left(ordered, wanted)
        known = {_common(held, wanted): held for held in ordered[max(0, at - 1) : at + 1]}
        most = max(known, default=0)
        if most < SHORTEST:
            return 0, []
        key = model, known[most]
        self._entries.move_to_end(key)
        return most, [part[:most] for part in self._entries[key][0]]

    def add(self, model: str, ids: Sequence[int], parts: Parts) -> None:
        """Keeps what the tokens `ids` left, unless an entry begins with them; those that it begins with are dropped."""
        size = sum(part.nbytes for part in parts)
        if size > self.budget or len(ids) <= SHORTEST:
            return
        held, ordered = _bytes(ids), self._ordered.setdefault(model, [])
        at = bisect_left(ordered, held)
        if at < len(ordered) and ordered[at].startswith(held):
            self._entries.move_to_end((model, ordered[at]))
            return
        while at and held.startswith(ordered[at - 1]):
            self._drop((model, ordered[at - 1]))
            at -= 1
        insort(ordered, held)
        self._entries[model, held] = parts, size
        self.bytes += size
        while self.bytes > self.budget:
            self._drop(next(iter(self._entries)))

    def forget(self, model: str) -> None:
        """Drops all that a model computed."""
        for held in list(self._ordered.get(model, ())):
            self._drop((model, held))
        self._ordered.pop(model, None)

    def _drop(self, key: tuple[str, bytes]) -> None:
        model, held = key
        ordered = self._ordered[model]
        del ordered[bisect_left(ordered, held)]
        self.bytes -= self._entries.pop(key)[1]


def _bytes(ids: Sequence[int]) -> bytes:
    """Four bytes a token: the order of bytes puts those side by side that begin alike."""
    return np.asarray(ids, np.int32).tobytes()


def _common(held: bytes, wanted: bytes) -> int:
    """How many tokens both begin with."""
    length = min(len(held), len(wanted)) // 4
    one, other = np.frombuffer(held, np.int32, length), np.frombuffer(wanted, np.int32, length)
    differs = np.flatnonzero(one != other)
    return int(differs[0]) if len(differs) else length
