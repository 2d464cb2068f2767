"""What is remembered of answered prompts: the longest beginning is found, within a budget, however many there are."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from tuneloop.generate import prefixes
from tuneloop.generate.prefixes import SHORTEST, PrefixCache


def parts(ids: list[int]) -> Any:
    """One layer whose keys and values are the tokens themselves, 8 bytes a token in all."""
    made = torch.tensor(ids, dtype=torch.int32)[:, None]
    return [made.expand(-1, 2).contiguous()]


def conversations(count: int, seed: int) -> list[list[int]]:
    """Rows of few different tokens that often begin as an earlier one does, some just as that one."""
    draw, rows = random.Random(seed), [[]]
    for _ in range(count):
        known = draw.choice(rows)
        kept = known[: draw.randrange(len(known) + 1)]
        rows.append([*kept, *(draw.choice((1, 2, 300, 70_000)) for _ in range(draw.randrange(40)))])
    return rows[1:]


def in_common(one: list[int], other: list[int]) -> int:
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


@pytest.mark.parametrize("seed", range(5))
def test_the_longest_beginning_is_found(seed: int) -> None:
    """Against a search through all that was ever added."""
    cache, added = PrefixCache(1 << 30), list[list[int]]()
    for number, ids in enumerate(conversations(150, seed)):
        wanted = [*ids, 5]
        most, found = cache.find("m", wanted)
        best = max((in_common(held, wanted[:-1]) for held in added), default=0)
        assert most == (best if best >= SHORTEST else 0)
        assert not found or found[0][:, 0].tolist() == wanted[:most]
        cache.add("m", ids, parts(ids))
        added += [ids] if len(ids) > SHORTEST else []
        assert cache.find("other", wanted) == (0, [])
        if number == 100:
            cache.forget("m")
            added.clear()
            assert (len(cache), cache.bytes) == (0, 0)


def test_the_budget_holds_and_what_was_used_last_stays() -> None:
    rows = [[first, *range(100, 119)] for first in range(50)]
    cache = PrefixCache(10 * 160)
    for ids in rows:
        cache.add("m", ids, parts(ids))
        assert cache.find("m", [*rows[0], 5])[0] == 20
        assert cache.bytes <= cache.budget
    assert len(cache) == 10
    cache.add("m", list(range(1_000)), parts(list(range(1_000))))  # larger than all of it
    assert len(cache) == 10


def test_an_entry_says_what_its_beginnings_say() -> None:
    cache, long = PrefixCache(1 << 20), list(range(60))
    for ids in (long[:20], long[:40], long, long[:30], long):
        cache.add("m", ids, parts(ids))
    assert (len(cache), cache.bytes) == (1, 60 * 8)


def test_thousands_of_entries_are_not_all_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search through all of them took 60 ms with 15,000, between two tokens of everybody."""
    cache, looked = PrefixCache(1 << 30), list[int]()
    compare = prefixes._common
    monkeypatch.setattr(prefixes, "_common", lambda *both: looked.append(1) or compare(*both))
    for number in range(2_000):
        ids = [*range(20), number]
        looked.clear()
        cache.find("m", ids)
        cache.add("m", ids, parts(ids))
        assert len(looked) <= 2
