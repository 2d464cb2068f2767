"""Every row is seen once an epoch, whatever the batch size, the budget and the number of processes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tuneloop.forward.plan import epoch_steps, micro_batches, share_of_rank, token_budget

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


@given(lengths=lengths, world=st.integers(1, 5))
def test_ranks_are_disjoint_complete_and_balanced(lengths: list[int], world: int) -> None:
    rows = list(range(len(lengths)))
    shares = [share_of_rank(lengths, rows, rank, world) for rank in range(world)]
    assert sorted(row for share in shares for row in share) == rows
    loads = [sum(lengths[row] for row in share) for share in shares]
    assert max(loads) - min(loads) <= max(lengths)


def test_budgets_by_device() -> None:
    assert token_budget("cpu") < token_budget("cuda:1") == token_budget("xpu")
