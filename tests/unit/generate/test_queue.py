from __future__ import annotations

import pytest

from tuneloop.generate.queue import FairQueue


def test_users_take_turns() -> None:
    queue: FairQueue[str] = FairQueue()
    for item in ("a1", "a2", "a3", "b1", "c1", "c2"):
        queue.put(item[0], item)
    assert list(queue) == ["a1", "b1", "c1", "a2", "c2", "a3"] and len(queue) == 6
    assert queue.take_out(lambda item: item == "a2") == ["a2"]
    assert [queue.pop() for _ in range(5)] == ["a1", "b1", "c1", "a3", "c2"]
    with pytest.raises(IndexError):
        queue.pop()


def test_an_item_given_up_while_it_is_looked_at_is_not_lost() -> None:
    """Another thread cancels an answer between two looks: it was in neither list, and its asker waited for ever."""
    queue: FairQueue[str] = FairQueue()
    queue.put("a", "a1")
    looks = iter([False, True])
    assert [*queue.take_out(lambda _: next(looks)), *queue] == ["a1"] and len(queue) == 1
