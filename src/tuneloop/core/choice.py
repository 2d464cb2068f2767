"""A fixed random choice of Examples, the same on every machine and in every run; knows nothing of what it is for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tuneloop.core import digest
from tuneloop.core.conversation import Example


def choose(examples: Sequence[Example], limit: int | None, purpose: str) -> list[Example]:
    """At most `limit` of them, those with the smallest digests of purpose and row, in their given order.

    Independent of the seed and of the order: runs with other seeds are measured on the same rows, and a smaller
    choice is part of a larger one. Equal Examples are told apart by how many came before.
    """
    if limit is None or len(examples) <= limit:
        return list(examples)
    seen: Counter[str] = Counter()
    key: list[str] = []
    for example in examples:
        key.append(digest.of_value([purpose, example.id, seen[example.id]]))
        seen[example.id] += 1
    kept = set(sorted(range(len(examples)), key=key.__getitem__)[:limit])
    return [example for index, example in enumerate(examples) if index in kept]
