"""Confidence intervals for proportions, means and weighted ratios; knows nothing of models or metrics.

Legend: N examples, R resamples. Every bootstrap is seeded, so the same numbers give the same interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

RESAMPLES = 10_000
MOST_DRAWS = 20_000_000  # N · R is kept below this (about a second), with never fewer than LEAST_RESAMPLES
LEAST_RESAMPLES = 1_000
BLOCK_DRAWS = 500_000  # indices drawn at a time, so that memory does not grow with N · R


class Interval(NamedTuple):
    """Both ends of a confidence interval, in the unit of the estimate."""

    low: float
    high: float


def normal_quantile(confidence: float) -> float:
    """The z with P(|Z| < z) = confidence; 1.96 for 0.95."""
    from statistics import NormalDist

    if not 0 < confidence < 1:
        raise ValueError(f"a confidence lies between 0 and 1, given: {confidence}")
    return NormalDist().inv_cdf((1 + confidence) / 2)


def wilson(successes: float, n: int, confidence: float = 0.95) -> Interval:
    """Interval of a proportion by the score method (Wilson 1927, J. Am. Stat. Assoc. 22, 209).

    It keeps its coverage at 0 of n and n of n, where the usual normal interval has no width.
    Raises ValueError for n = 0 or more successes than trials.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} trials is no proportion")
    z, p = normal_quantile(confidence), successes / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # At the ends the formula equals 0 or 1 exactly; rounding must not cut the estimate out of its own interval.
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    high = 1.0 if successes == n else min(1.0, middle + half)
    return Interval(low, high)


def bootstrap_mean(values: Sequence[float] | Array, confidence: float = 0.95, seed: int = 0) -> Interval:
    """BCa bootstrap interval of a mean (Efron 1987, J. Am. Stat. Assoc. 82, 171).

    Bias-corrected and accelerated, so that a skewed sample (most scores 1, a few 0) gets a skewed interval. Values
    that are all equal give an interval without width: the bootstrap cannot see what the sample does not show.
    """
    import numpy as np

    values_N = np.asarray(values, dtype=np.float64)
    if values_N.size == 0:
        raise ValueError("an interval needs at least one value")
    mean = float(values_N.mean())
    if values_N.size == 1 or np.ptp(values_N) == 0:
        return Interval(mean, mean)
    means_R = np.concatenate([values_N[index_RN].mean(axis=1) for index_RN in resamples(values_N.size, seed)])
    below = (np.count_nonzero(means_R < mean) + np.count_nonzero(means_R == mean) / 2) / means_R.size
    centred_N = values_N - mean  # proportional to the jackknife's deviations (all without i) of a mean
    acceleration = float((centred_N**3).sum() / (6 * (centred_N**2).sum() ** 1.5))
    return _bca(means_R, below, acceleration, confidence)


def bootstrap_ratio(
    numerators: Sequence[float] | Array, denominators: Sequence[float] | Array, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Percentile bootstrap interval of sum(numerators) / sum(denominators), resampling pairs (examples).

    For perplexity: numerators = summed negative log-likelihoods in nats, denominators = tokens; the exponential of
    both ends is the interval of the perplexity, since percentiles follow a monotone map.
    """
    import numpy as np

    top_N, bottom_N = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    if top_N.size == 0 or top_N.shape != bottom_N.shape:
        raise ValueError(f"a ratio needs pairs, given: {top_N.size} numerators and {bottom_N.size} denominators")
    if np.any(bottom_N <= 0):
        raise ValueError("every denominator must be positive")
    ratios_R = np.concatenate(
        [top_N[index_RN].sum(axis=1) / bottom_N[index_RN].sum(axis=1) for index_RN in resamples(top_N.size, seed)]
    )
    return percentile(ratios_R, confidence)


def bootstrap_sums(
    statistics: Array, combine: Callable[[Array], Array], confidence: float = 0.95, seed: int = 0
) -> Interval:
    """BCa bootstrap interval of `combine` of the summed statistics [N, S] of N examples.

    `combine` maps R sums [R, S] to R numbers [R], e.g. n-gram counts to BLEU; resamples for which it is undefined (NaN)
    are left out. Bias-corrected, because such numbers can be biased themselves: a resample's calibration error is on
    average larger than the sample's. Acceleration by the jackknife. Raises ValueError without examples.
    """
    import numpy as np

    if statistics.ndim != 2 or not statistics.size:
        raise ValueError(f"an interval needs examples with statistics, given: shape {statistics.shape}")
    numbers_R = np.concatenate([combine(sums_RS) for sums_RS in resampled_sums(statistics, seed)])
    known_R = numbers_R[np.isfinite(numbers_R)]
    total_1S = statistics.sum(axis=0, keepdims=True)
    value = float(combine(total_1S)[0])
    if not known_R.size or not np.isfinite(value):
        return Interval(float("nan"), float("nan"))
    if np.ptp(known_R) == 0:
        return Interval(value, value)
    slack = 1e-12 * max(1.0, abs(value))  # sums in another order must count as equal
    below = (np.count_nonzero(known_R < value - slack) + np.count_nonzero(np.abs(known_R - value) <= slack) / 2) / (
        known_R.size
    )
    left_N = combine(total_1S - statistics)
    centred_N = np.nanmean(left_N) - left_N if np.isfinite(left_N).any() else np.zeros(1)
    centred_N = centred_N[np.isfinite(centred_N)]
    spread = float((centred_N**2).sum() ** 1.5)
    return _bca(known_R, below, float((centred_N**3).sum()) / (6 * spread) if spread else 0.0, confidence)


def resampled_sums(statistics: Array, seed: int) -> Iterator[Array]:
    """Blocks [r, S] of the sums over examples drawn with replacement; the same draws for the same N and seed."""
    import numpy as np

    n = len(statistics)
    for index_RN in resamples(n, seed):
        counts_RN = np.stack([np.bincount(index_N, minlength=n) for index_N in index_RN])
        yield counts_RN.astype(np.float64) @ statistics


def percentile(estimates_R: Array, confidence: float = 0.95) -> Interval:
    """The middle `confidence` of the resampled estimates."""
    import numpy as np

    low, high = np.quantile(estimates_R, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


def resamples(n: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Blocks [r, N] of indices into n examples, drawn with replacement: the same sequence for the same n and seed."""
    import numpy as np

    generator = np.random.default_rng(seed)
    left = max(LEAST_RESAMPLES, min(RESAMPLES, MOST_DRAWS // n))
    while left:
        rows = min(left, max(1, BLOCK_DRAWS // n))
        yield generator.integers(0, n, size=(rows, n))
        left -= rows


def _bca(estimates_R: Array, below: float, acceleration: float, confidence: float) -> Interval:
    """The percentiles moved by bias (share of estimates below the observed one) and acceleration (skewness)."""
    from statistics import NormalDist

    import numpy as np

    normal = NormalDist()
    smallest = 0.5 / estimates_R.size  # no share of 0 or 1: their normal quantile is infinite
    bias = normal.inv_cdf(min(max(below, smallest), 1 - smallest))

    def moved(z: float) -> float:
        shifted = bias + z
        return normal.cdf(bias + shifted / (1 - acceleration * shifted))

    z = normal_quantile(confidence)
    low, high = np.quantile(estimates_R, [moved(-z), moved(z)])
    return Interval(float(low), float(high))
