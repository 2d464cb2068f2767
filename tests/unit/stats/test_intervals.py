from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tuneloop.stats import bootstrap
from tuneloop.stats.bootstrap import ratio
from tuneloop.stats.intervals import Interval, bootstrap_mean, bootstrap_sums, normal_quantile, wilson


def bootstrap_ratio(numerators: np.ndarray | list[float], denominators: np.ndarray | list[float]) -> Interval:
    return bootstrap_sums(np.column_stack([numerators, denominators]), ratio)


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
@pytest.mark.parametrize(("successes", "n"), [(0, 1), (0, 30), (1, 7), (15, 30), (29, 30), (30, 30), (765, 872)])
def test_wilson_equals_scipy(successes: int, n: int, confidence: float) -> None:
    expected = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert wilson(successes, n, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_contains_the_estimate_and_mirrors(case: tuple[int, int]) -> None:
    successes, n = case
    low, high = wilson(successes, n)
    assert 0 <= low <= successes / n <= high <= 1
    assert high - low > 0
    assert wilson(n - successes, n) == pytest.approx((1 - high, 1 - low), abs=1e-9)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 4)])
def test_wilson_refuses_what_is_no_proportion(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="no proportion"):
        wilson(successes, n)


def test_normal_quantile() -> None:
    assert normal_quantile(0.95) == pytest.approx(1.959964, abs=1e-6)
    with pytest.raises(ValueError, match="between 0 and 1"):
        normal_quantile(95)


@pytest.mark.parametrize("shape", ["skewed", "uniform", "normal"])
def test_bca_agrees_with_scipy(shape: str) -> None:
    rng = np.random.default_rng(3)
    values = {
        "skewed": (rng.random(80) < 0.93).astype(float) * rng.random(80) ** 0.1,
        "uniform": rng.random(60),
        "normal": rng.normal(5, 2, 100),
    }[shape]
    theirs = stats.bootstrap((values,), np.mean, n_resamples=10_000, rng=np.random.default_rng(9)).confidence_interval
    width = theirs.high - theirs.low
    assert bootstrap_mean(values) == pytest.approx((theirs.low, theirs.high), abs=0.1 * width)


def test_bootstrap_is_seeded_and_covers() -> None:
    rng = np.random.default_rng(0)
    assert bootstrap_mean([0.0, 1.0, 0.5, 0.2]) == bootstrap_mean([0.0, 1.0, 0.5, 0.2])
    covered = 0
    for seed in range(100):
        low, high = bootstrap_mean(rng.beta(4, 1, 40), seed=seed)
        covered += low <= 0.8 <= high
    assert 88 <= covered <= 100


def test_equal_values_have_no_width() -> None:
    assert bootstrap_mean([0.7] * 9) == (0.7, 0.7) or bootstrap_mean([0.7] * 9) == pytest.approx((0.7, 0.7))
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_mean([])


def test_ratio_with_equal_weights_is_the_mean() -> None:
    values = np.random.default_rng(1).random(50)
    low, high = bootstrap_ratio(values * 3, np.full(50, 3.0))
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(9)
    ).confidence_interval
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.01)


def test_ratio_weights_long_examples_more() -> None:
    low, high = bootstrap_ratio([1000.0] * 20 + [1.0] * 20, [1000.0] * 20 + [0.25] * 20)
    assert low == pytest.approx(1.0, abs=0.01) and high == pytest.approx(1.0, abs=0.01)


def test_a_resample_without_weight_is_left_out() -> None:
    assert bootstrap_ratio([1.0, 0.0], [1.0, 0.0]) == (1.0, 1.0)
    assert all(math.isnan(end) for end in bootstrap_ratio([0.0, 0.0], [0.0, 0.0]))
    with pytest.raises(ValueError, match="needs examples"):
        bootstrap_sums(np.empty((0, 2)), ratio)


def test_the_work_is_bounded() -> None:
    drawn = [block.shape for block in bootstrap.counts(50_000, 0)]
    assert sum(rows for rows, _ in drawn) == bootstrap.LEAST_RESAMPLES
    assert max(rows * n for rows, n in drawn) <= bootstrap.BLOCK_DRAWS
    assert sum(block.shape[0] for block in bootstrap.counts(10, 0)) == bootstrap.RESAMPLES


@given(st.integers(1, 200), st.integers(0, 5))
def test_every_resample_has_as_many_examples(n: int, seed: int) -> None:
    sums = bootstrap.resampled_sums(np.ones((n, 1)), seed)
    assert (sums == n).all() and len(sums) == bootstrap.RESAMPLES
    assert sums.tolist() == bootstrap.resampled_sums(np.ones((n, 1)), seed).tolist()


def test_ratio_interval_follows_the_exponential() -> None:
    rng = np.random.default_rng(5)
    nll, tokens = rng.gamma(4, 2, 60), rng.integers(1, 9, 60).astype(float)
    low, high = bootstrap_ratio(nll, tokens)
    assert math.exp(low) < math.exp(nll.sum() / tokens.sum()) < math.exp(high)
