"""Keys and values of conversations that were answered, for those that go on or begin alike. Knows nothing of requests.

An entry belongs to one model by a digest of base and adapter: what another adapter computed is never reused, and an
adapter that comes back under the same name with other weights has another digest.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tuneloop.generate.slots import Parts

SHORTEST = 16
"""Tokens below which computing again is cheaper than copying."""


class PrefixCache:
    """What the last rows left behind, within `budget` bytes; the longest unused goes first."""

    def __init__(self, budget: int) -> None:
        self.budget, self.bytes = budget, 0
        self._entries: OrderedDict[tuple[str, bytes], tuple[NDArray[np.int32], Parts, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, model: str, ids: Sequence[int]) -> tuple[int, Parts]:
        """(known tokens, their keys and values): of the entry that begins with most of `ids`; one at least is new."""
        wanted = np.asarray(ids, np.int32)
        best, most = None, SHORTEST - 1
        for key, (held, _, _) in self._entries.items():
            if key[0] != model:
                continue
            length = min(len(held), len(wanted) - 1)
            differs = np.flatnonzero(held[:length] != wanted[:length])
            same = int(differs[0]) if len(differs) else length
            if same > most:
                best, most = key, same
        if best is None:
            return 0, []
        self._entries.move_to_end(best)
        _, parts, _ = self._entries[best]
        return most, [(keys[:, :most], values[:, :most]) for keys, values in parts]

    def add(self, model: str, ids: Sequence[int], parts: Parts) -> None:
        """Keeps what the tokens `ids` left; entries that it begins with are dropped, as it says all that they say."""
        held = np.asarray(ids, np.int32)
        size = sum(keys.nbytes + values.nbytes for keys, values in parts)
        if size > self.budget or len(held) <= SHORTEST:
            return
        for key, (known, _, _) in list(self._entries.items()):
            if key[0] == model and len(known) <= len(held) and bool((held[: len(known)] == known).all()):
                self._drop(key)
        self._entries[model, held.tobytes()] = held, parts, size
        self.bytes += size
        while self.bytes > self.budget:
            self._drop(next(iter(self._entries)))

    def forget(self, model: str) -> None:
        """Drops all that a model computed."""
        for key in [key for key in self._entries if key[0] == model]:
            self._drop(key)

    def _drop(self, key: tuple[str, bytes]) -> None:
        self.bytes -= self._entries.pop(key)[2]
