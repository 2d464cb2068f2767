"""Comparison of two systems on the same examples: difference, interval, p-value; knows nothing of models or metrics.

Legend: N examples, R resamples. All p-values are two-sided; differences are second minus first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tuneloop.stats.intervals import Interval, percentile, resampled_sums, resamples, wilson

if TYPE_CHECKING:
    from tuneloop.stats.intervals import Array


class Difference(NamedTuple):
    """Second minus first, with the ends of its interval and the two-sided p-value of 'no difference'."""

    value: float
    low: float
    high: float
    p: float


def compare_proportions(first: Sequence[bool], second: Sequence[bool], confidence: float = 0.95) -> Difference:
    """Right/wrong on the same examples: interval by Newcombe's paired method, p-value by McNemar's exact test."""
    n = _pairs(first, second)
    both = sum(a and b for a, b in zip(first, second, strict=True))
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    low, high = newcombe(both, only_first, only_second, n - both - only_first - only_second, confidence)
    return Difference((only_second - only_first) / n, low, high, mcnemar(only_first, only_second))


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact p-value that the discordant pairs fall to both sides alike (McNemar 1947, binomial form).

    Pairs on which both agree carry no evidence; without discordant pairs p is 1.
    """
    n, fewer = only_first + only_second, min(only_first, only_second)
    if 2 * fewer >= n - 1:  # both tails meet; also n = 0
        return 1.0
    tail = term = 1  # integers: exact for any n
    for k in range(fewer):
        term = term * (n - k) // (k + 1)
        tail += term
    return 2 * tail / 2**n


def newcombe(both: int, only_first: int, only_second: int, neither: int, confidence: float = 0.95) -> Interval:
    """Interval of a paired difference of proportions, second minus first.

    Method 10 of Newcombe 1998 (Statistics in Medicine 17, 2635): Wilson limits of both proportions, squared and
    added with the correlation of the fourfold table. Stays within [-1, 1] and has width at 0 and n of n.
    """
    n = both + only_first + only_second + neither
    p1, p2 = (both + only_first) / n, (both + only_second) / n
    low1, high1 = wilson(both + only_first, n, confidence)
    low2, high2 = wilson(both + only_second, n, confidence)
    product = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    cross = both * neither - only_first * only_second
    if cross > 0:  # continuity correction, for positive association only
        cross = max(cross - n / 2, 0)
    phi = cross / math.sqrt(product) if product else 0.0
    down1, up1, down2, up2 = p1 - low1, high1 - p1, p2 - low2, high2 - p2
    below = math.sqrt(max(0.0, down2**2 - 2 * phi * down2 * up1 + up1**2))
    above = math.sqrt(max(0.0, up2**2 - 2 * phi * up2 * down1 + down1**2))
    return Interval(p2 - p1 - below, p2 - p1 + above)


def compare_means(
    first: Sequence[float], second: Sequence[float], confidence: float = 0.95, seed: int = 0
) -> Difference:
    """Scores of the same examples: paired bootstrap of the difference of means (percentile interval)."""
    import numpy as np

    _pairs(first, second)
    change_N = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    value, n = float(change_N.mean()), change_N.size
    resampled_R = np.concatenate([change_N[index_RN].mean(axis=1) for index_RN in resamples(n, seed)])
    low, high = percentile(resampled_R, confidence)
    return Difference(value, low, high, bootstrap_p(value, resampled_R))


def compare_ratios(
    first: Sequence[tuple[float, float]],
    second: Sequence[tuple[float, float]],
    confidence: float = 0.95,
    seed: int = 0,
    scale: Callable[[Array], Array] | None = None,
) -> Difference:
    """Weighted ratios (numerator, denominator) of the same examples: paired bootstrap of the difference.

    `scale` maps both ratios before they are subtracted, `numpy.exp` for perplexities. The p-value is that of the
    unscaled difference, where the bootstrap's symmetry holds far better than after an exponential.
    """
    import numpy as np

    n = _pairs(first, second)
    first_N2, second_N2 = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    mapped: Callable[[Array], Array] = scale or (lambda ratios: ratios)
    plain, scaled = [], []
    for index_RN in resamples(n, seed):
        a_R2, b_R2 = first_N2[index_RN].sum(axis=1), second_N2[index_RN].sum(axis=1)
        a_R, b_R = a_R2[:, 0] / a_R2[:, 1], b_R2[:, 0] / b_R2[:, 1]
        plain.append(b_R - a_R)
        scaled.append(mapped(b_R) - mapped(a_R))
    a_2, b_2 = first_N2.sum(axis=0), second_N2.sum(axis=0)
    a, b = a_2[:1] / a_2[1:], b_2[:1] / b_2[1:]
    low, high = percentile(np.concatenate(scaled), confidence)
    p = bootstrap_p(float((b - a)[0]), np.concatenate(plain))
    return Difference(float((mapped(b) - mapped(a))[0]), low, high, p)


def compare_sums(
    first: Array, second: Array, combine: Callable[[Array], Array], confidence: float = 0.95, seed: int = 0
) -> Difference:
    """Statistics [N, S] of the same examples: paired bootstrap of the difference of `combine` of their sums.

    `combine` as in `intervals.bootstrap_sums`.
    """
    import numpy as np

    _pairs(list(first), list(second))
    both = zip(resampled_sums(first, seed), resampled_sums(second, seed), strict=True)
    changes_R = np.concatenate([combine(b_RS) - combine(a_RS) for a_RS, b_RS in both])
    known_R = changes_R[np.isfinite(changes_R)]
    value = float((combine(second.sum(axis=0, keepdims=True)) - combine(first.sum(axis=0, keepdims=True)))[0])
    low, high = percentile(known_R, confidence) if known_R.size else (float("nan"), float("nan"))
    return Difference(value, low, high, bootstrap_p(value, known_R))


def bootstrap_p(value: float, resampled_R: Array) -> float:
    """Two-sided p-value of 'no difference': how often the resampled differences, centred, are as far out.

    The shift to a mean of zero is what makes it a test (Hall and Wilson 1991, Biometrics 47, 757). The observed
    sample counts as one resample, so p is never 0 but at least 1 / (R + 1).
    """
    import numpy as np

    slack = 1e-12 * max(1.0, abs(value))  # equal sums in another order must count as equal
    extreme = int(np.count_nonzero(np.abs(resampled_R - value) >= abs(value) - slack))
    return (extreme + 1) / (resampled_R.size + 1)


def _pairs(first: Sequence[object], second: Sequence[object]) -> int:
    if not first or len(first) != len(second):
        raise ValueError(f"a paired comparison needs pairs, given: {len(first)} and {len(second)} values")
    return len(first)
