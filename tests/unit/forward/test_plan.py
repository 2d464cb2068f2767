"""Every row is seen once an epoch, whatever the batch size, the budget and the number of processes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.forward.plan import epoch_steps, micro_batches, share_of_rank, token_budget
from tuneloop.forward.tree import in_order

lengths = st.lists(st.integers(1, 300), min_size=1, max_size=60)


@given(count=st.integers(1, 200), batch=st.integers(1, 40), seed=st.integers(0, 2**40), epoch=st.integers(0, 9))
def test_every_row_once_an_epoch(count: int, batch: int, seed: int, epoch: int) -> None:
    steps = epoch_steps(count, batch, seed, epoch)
    assert sorted(row for step in steps for row in step) == list(range(count))
    assert all(len(step) == batch for step in steps[:-1]) and 1 <= len(steps[-1]) <= batch
    assert steps == epoch_steps(count, batch, seed, epoch)


def test_epochs_and_seeds_differ_and_a_curriculum_does_not() -> None:
    first = epoch_steps(100, 10, 1, 0)
    assert first != epoch_steps(100, 10, 1, 1)
    assert first != epoch_steps(100, 10, 2, 0)
    assert epoch_steps(5, 2, 1, 3, shuffle=False) == [[0, 1], [2, 3], [4]]


def test_the_documented_order_is_frozen() -> None:
    """examples/plain_loop.py and every resumed run rely on it: numpy's default_rng([seed, epoch]).permutation."""
    assert epoch_steps(6, 4, 42, 1) == [[4, 0, 1, 2], [3, 5]]


@given(lengths=lengths, budget=st.integers(1, 500), packed=st.booleans())
def test_micro_batches_hold_all_rows_within_the_budget(lengths: list[int], budget: int, packed: bool) -> None:
    rows = list(range(0, len(lengths), 2))
    batches = micro_batches(lengths, rows, budget, packed=packed)
    assert sorted(row for batch in batches for row in batch) == rows
    for batch in batches:
        size = [lengths[row] for row in batch]
        cost = sum(size) if packed else max(size) * len(size)
        assert cost <= budget or len(batch) == 1
    firsts = [lengths[batch[0]] for batch in batches]
    assert firsts == sorted(firsts, reverse=True), "longest first, so that too little memory shows at once"


heads = st.lists(st.tuples(st.integers(0, 3), st.integers(16, 40), st.integers(1, 90)), min_size=1, max_size=40)


@given(rows=heads, budget=st.integers(20, 600), world=st.integers(1, 4))
def test_rows_that_begin_alike_go_together(rows: list[tuple[int, int, int]], budget: int, world: int) -> None:
    ids = [
        np.concatenate([np.full(head, kind), 10 + np.full(tail, number)])
        for number, (kind, head, tail) in enumerate(rows)
    ]
    lengths = [len(row) for row in ids]
    batches = micro_batches(lengths, range(len(ids)), budget, packed=True, ids=ids)
    assert sorted(row for batch in batches for row in batch) == list(range(len(ids)))
    for batch in batches:
        shared = sum(in_order(ids, batch)[1])
        assert sum(lengths[row] for row in batch) - shared <= budget or len(batch) == 1
    shares = [share_of_rank(lengths, range(len(ids)), rank, world, ids) for rank in range(world)]
    assert sorted(row for share in shares for row in share) == list(range(len(ids)))
    loads = [sum(lengths[row] for row in share) - sum(in_order(ids, share)[1]) for share in shares]
    assert max(loads) - min(loads) <= -(-sum(loads) // world) + max(lengths)


def test_families_stay_together_and_are_shuffled() -> None:
    numbers = np.arange(40) % 10
    one, other = (epoch_steps(40, 8, 1, epoch, families=numbers) for epoch in range(2))
    assert one != other
    for steps in (one, other):
        rows = [row for step in steps for row in step]
        assert sorted(rows) == list(range(40))
        assert [len(set(numbers[rows[start : start + 4]])) for start in range(0, 40, 4)] == [1] * 10


@given(lengths=lengths, world=st.integers(1, 5))
def test_ranks_are_disjoint_complete_and_balanced(lengths: list[int], world: int) -> None:
    rows = list(range(len(lengths)))
    shares = [share_of_rank(lengths, rows, rank, world) for rank in range(world)]
    assert sorted(row for share in shares for row in share) == rows
    loads = [sum(lengths[row] for row in share) for share in shares]
    assert max(loads) - min(loads) <= max(lengths)


def test_budgets_by_device() -> None:
    assert token_budget("cpu") < token_budget("cuda:1") == token_budget("xpu")
