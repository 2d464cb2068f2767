"""Confidence intervals for proportions, means and functions of sums; knows nothing of models or metrics.

Legend: N examples, S statistics, R resamples. Every bootstrap is seeded: the same numbers give the same interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tuneloop.stats.bootstrap import ratio, resampled_sums

if TYPE_CHECKING:
    from tuneloop.stats.bootstrap import Array


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
    """BCa bootstrap interval of a mean; see `bca`."""
    import numpy as np

    values_N = np.asarray(values, dtype=np.float64)
    if values_N.size == 0:
        raise ValueError("an interval needs at least one value")
    return bootstrap_sums(np.column_stack([values_N, np.ones_like(values_N)]), ratio, confidence, seed)


def bootstrap_sums(
    statistics: Array, combine: Callable[[Array], Array], confidence: float = 0.95, seed: int = 0
) -> Interval:
    """BCa bootstrap interval of `combine` of the summed statistics [N, S] of N examples; see `bca`.

    `combine` maps R sums [R, S] to R numbers [R], e.g. n-gram counts to BLEU, or `bootstrap.ratio`. Raises ValueError
    without examples.
    """
    return bca(statistics, combine, combine(resampled_sums(statistics, seed)), confidence)


def bca(statistics: Array, combine: Callable[[Array], Array], numbers_R: Array, confidence: float = 0.95) -> Interval:
    """BCa interval of `combine` of the summed statistics [N, S], given the resampled numbers [R].

    Bias-corrected and accelerated (Efron 1987, J. Am. Stat. Assoc. 82, 171), the acceleration by the jackknife: a
    skewed sample (most scores 1, a few 0) gets a skewed interval, and a number that is biased itself, as a calibration
    error, one around it. Undefined numbers (NaN) are left out; where nothing varies there is no width: the bootstrap
    cannot see what the sample does not show.
    """
    import numpy as np

    total_1S = statistics.sum(axis=0, keepdims=True)
    value = float(combine(total_1S)[0])
    numbers_R = numbers_R[np.isfinite(numbers_R)]
    if not numbers_R.size or not math.isfinite(value):
        return Interval(math.nan, math.nan)
    slack = 1e-12 * max(1.0, abs(value))  # the same sums in another order must count as equal
    if np.ptp(numbers_R) <= slack:
        return Interval(value, value)
    below = np.count_nonzero(numbers_R < value - slack) + np.count_nonzero(np.abs(numbers_R - value) <= slack) / 2
    left_out_N = combine(total_1S - statistics)
    left_out_N = left_out_N[np.isfinite(left_out_N)]
    centred_N = left_out_N.mean() - left_out_N if left_out_N.size else np.zeros(1)
    spread = float((centred_N**2).sum() ** 1.5)
    acceleration = float((centred_N**3).sum()) / (6 * spread) if spread else 0.0
    return _moved_percentiles(numbers_R, below / numbers_R.size, acceleration, confidence)


def percentile(estimates_R: Array, confidence: float = 0.95) -> Interval:
    """The middle `confidence` of the resampled estimates that are finite; NaN where none is."""
    import numpy as np

    known_R = estimates_R[np.isfinite(estimates_R)]
    if not known_R.size:
        return Interval(math.nan, math.nan)
    low, high = np.quantile(known_R, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


def _moved_percentiles(estimates_R: Array, below: float, acceleration: float, confidence: float) -> Interval:
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
