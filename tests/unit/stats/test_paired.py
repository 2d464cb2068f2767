from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tuneloop.stats.bootstrap import ratio
from tuneloop.stats.paired import compare_means, compare_proportions, compare_sums, mcnemar, newcombe


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_equals_the_binomial_test(b: int, c: int) -> None:
    expected = stats.binomtest(b, b + c).pvalue if b + c else 1.0
    assert mcnemar(b, c) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(b, c) == mcnemar(c, b)


def test_mcnemar_by_brute_force() -> None:
    for n in range(1, 9):
        for b in range(n + 1):
            outcomes = [sum(signs) for signs in itertools.product([0, 1], repeat=n)]
            extreme = sum(abs(s - n / 2) >= abs(b - n / 2) for s in outcomes)
            assert mcnemar(b, n - b) == pytest.approx(extreme / 2**n)


def test_mcnemar_of_thousands_stays_exact() -> None:
    assert mcnemar(5000, 5000) == 1.0
    assert 0 < mcnemar(4000, 5000) < 1e-20


def test_newcombe_published() -> None:
    """Newcombe 1998, Statistics in Medicine 17, 2635, table III: 36, 12, 2, 0 gives 0.0569 to 0.3404 by method 10."""
    assert newcombe(36, 2, 12, 0) == pytest.approx((0.0569, 0.3404), abs=5e-5)


@given(st.tuples(*[st.integers(0, 60)] * 4).filter(lambda table: sum(table) > 0))
def test_newcombe_contains_the_difference_and_mirrors(table: tuple[int, int, int, int]) -> None:
    both, a, b, neither = table
    low, high = newcombe(*table)
    assert -1 - 1e-9 <= low <= (b - a) / sum(table) + 1e-12 and (b - a) / sum(table) - 1e-12 <= high <= 1 + 1e-9
    assert newcombe(both, b, a, neither) == pytest.approx((-high, -low), abs=1e-9)


def test_newcombe_covers() -> None:
    rng, covered = np.random.default_rng(2), 0
    for _ in range(300):
        first = rng.random(60) < 0.5
        second = np.where(rng.random(60) < 0.6, first, rng.random(60) < 0.9)
        difference = compare_proportions(first.tolist(), second.tolist())
        covered += difference.low <= 0.4 * 0.4 <= difference.high
    assert covered / 300 > 0.91


def test_compare_proportions_counts_the_four_cells() -> None:
    first, second = [True, True, False, False, False], [True, False, True, True, False]
    found = compare_proportions(first, second)
    assert found.value == pytest.approx(0.2)
    assert found.p == mcnemar(1, 2)
    assert (found.low, found.high) == newcombe(1, 1, 2, 1)
    with pytest.raises(ValueError, match="pairs"):
        compare_proportions([True], [True, False])


def test_compare_means_agrees_with_the_t_test() -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(0, 1, 200)
    for shift in (0.0, 0.1, 0.2, 0.5):
        second = first + rng.normal(shift, 1, 200)
        found = compare_means(first.tolist(), second.tolist())
        expected = stats.ttest_rel(second, first)
        assert found.p == pytest.approx(expected.pvalue, abs=0.02)
        theirs = expected.confidence_interval()
        assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.03)


def test_no_change_is_no_evidence() -> None:
    assert compare_means([0.3, 0.5], [0.3, 0.5]) == (0.0, 0.0, 0.0, 1.0)
    assert compare_proportions([True] * 8, [True] * 8).p == 1.0


def test_compare_means_holds_its_level() -> None:
    rng = np.random.default_rng(7)
    found = [compare_means(rng.random(40).tolist(), rng.random(40).tolist(), seed=i).p for i in range(100)]
    assert np.mean(np.array(found) < 0.05) < 0.12


def test_compare_ratios_is_paired_and_scaled() -> None:
    rng = np.random.default_rng(4)
    tokens = rng.integers(1, 20, 80).astype(float)
    base = tokens * rng.gamma(9, 1 / 3, 80)
    tuned = base - 0.5 * tokens  # exactly half a nat per token better on every example
    first, second = np.column_stack([base, tokens]), np.column_stack([tuned, tokens])
    plain = compare_sums(first, second, ratio)
    assert plain[:3] == pytest.approx((-0.5, -0.5, -0.5))
    assert plain.p < 0.001
    scaled = compare_sums(first, second, lambda sums: np.exp(ratio(sums)), test=ratio)
    expected = math.exp(tuned.sum() / tokens.sum()) - math.exp(base.sum() / tokens.sum())
    assert scaled.value == pytest.approx(expected)
    assert scaled.low < expected < scaled.high < 0
    assert scaled.p == plain.p
