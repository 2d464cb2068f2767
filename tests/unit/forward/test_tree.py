"""The prefix tree holds every row, once; families are branches of it."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.forward.tree import FLOOR, Tree, families, in_order

short = st.lists(st.integers(0, 2), min_size=1, max_size=40).map(lambda ids: np.array(ids, np.int32))
rows_of_few_tokens = st.lists(st.tuples(st.integers(0, 60), short), min_size=1, max_size=12).map(
    lambda rows: [np.concatenate([np.arange(head, dtype=np.int32) % 3, tail]) for head, tail in rows]
)


def common(one: np.ndarray, other: np.ndarray) -> int:
    pairs = [a == b for a, b in zip(one.tolist(), other.tolist(), strict=False)]
    return pairs.index(False) if False in pairs else len(pairs)


@given(rows_of_few_tokens)
def test_every_row_is_found_along_its_path(ids: list[np.ndarray]) -> None:
    tree = Tree.of(ids)
    laid_out = tree.laid_out(ids)
    assert len(laid_out) == tree.tokens
    for row, path, known in zip(ids, tree.paths, tree.known, strict=True):
        assert laid_out[path].tolist() == row.tolist()
        assert known == 0 or known >= FLOOR
        assert not known or any(other is not path and (other[:known] == path[:known]).all()
                                for other in tree.paths if len(other) >= known)  # fmt: skip
    own = np.concatenate([path[known:] for path, known in zip(tree.paths, tree.known, strict=True)])
    assert sorted(own.tolist()) == list(range(tree.tokens)), "each token belongs to one row"


@given(rows_of_few_tokens)
def test_it_shares_all_that_two_rows_have_in_common(ids: list[np.ndarray]) -> None:
    tree = Tree.of(ids)
    if not any(tree.known):
        saved = sum(in_order(ids, range(len(ids)))[1])
        assert saved < 0.05 * sum(map(len, ids)), "nothing is shared only where next to nothing would be saved"
        return
    for (one, path), (other, other_path) in combinations(zip(ids, tree.paths, strict=True), 2):
        same = common(one, other)
        assert common(path, other_path) == (same if same >= FLOOR else 0)


@given(rows_of_few_tokens, st.integers(1, 6))
def test_families_are_branches(ids: list[np.ndarray], limit: int) -> None:
    numbers = families(ids, limit)
    order, _ = in_order(ids, range(len(ids)))
    runs = [order[0]]
    for before, row in pairwise(order):
        if numbers[row] != numbers[before]:
            runs.append(row)
    assert len(runs) == len(set(numbers.tolist())), "a family is a stretch of the sorted rows"
    for family in set(numbers.tolist()):
        members = [ids[i] for i in np.flatnonzero(numbers == family)]
        assert len(members) <= limit
        shared = [common(a, b) for a, b in combinations(members, 2)]
        outside = [ids[i] for i in np.flatnonzero(numbers != family)]
        if shared:
            assert min(shared) >= FLOOR
            assert all(common(member, other) <= min(shared) for member in members for other in outside)
