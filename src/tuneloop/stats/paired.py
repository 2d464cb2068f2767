"""Comparison of two systems on the same examples: difference, interval, p-value; knows nothing of models or metrics.

Legend: N examples, S statistics, R resamples. All p-values are two-sided; differences are second minus first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Sized
from typing import TYPE_CHECKING, NamedTuple

from tuneloop.stats.bootstrap import resampled_sums
from tuneloop.stats.intervals import Interval, percentile, wilson

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tuneloop.stats.bootstrap import Array


class Difference(NamedTuple):
    """Second minus first, with the ends of its interval and the two-sided p-value of 'no difference'."""

    value: float
    low: float
    high: float
    p: float


def compare_proportions(
    first: Sequence[bool] | NDArray[np.bool_], second: Sequence[bool] | NDArray[np.bool_], confidence: float = 0.95
) -> Difference:
    """Right/wrong on the same examples: interval by Newcombe's paired method, p-value by McNemar's exact test."""
    import numpy as np

    n = _pairs(first, second)
    a_N, b_N = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    both, only_first, only_second = (int(np.count_nonzero(x)) for x in (a_N & b_N, a_N & ~b_N, b_N & ~a_N))
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

    n = _pairs(first, second)
    change_N = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    return of_resamples(float(change_N.mean()), resampled_sums(change_N[:, None], seed)[:, 0] / n, confidence)


def compare_sums(
    first: Array,
    second: Array,
    combine: Callable[[Array], Array],
    confidence: float = 0.95,
    seed: int = 0,
    test: Callable[[Array], Array] | None = None,
) -> Difference:
    """Statistics [N, S] of the same examples: paired bootstrap of the difference of `combine` of their sums.

    `combine` as in `intervals.bootstrap_sums`. The p-value is that of `test` of the sums where it is given: of the
    logarithm of a perplexity, say, for which the bootstrap's symmetry holds far better than after the exponential.
    """
    import numpy as np

    _pairs(first, second)
    width = first.shape[1]
    sums_RS = resampled_sums(np.concatenate([first, second], axis=1), seed)
    whole_1S = np.concatenate([first, second], axis=1).sum(axis=0, keepdims=True)

    def change(of: Callable[[Array], Array], sums: Array) -> Array:
        return of(sums[:, width:]) - of(sums[:, :width])

    tested = (float(change(test, whole_1S)[0]), change(test, sums_RS)) if test is not None else None
    return of_resamples(float(change(combine, whole_1S)[0]), change(combine, sums_RS), confidence, tested)


def of_resamples(
    value: float, changes_R: Array, confidence: float = 0.95, tested: tuple[float, Array] | None = None
) -> Difference:
    """A difference with its percentile interval, given its resamples; p from `tested` (value, resamples) if given."""
    import numpy as np

    low, high = percentile(changes_R, confidence)
    value_, resamples_R = tested or (value, changes_R)
    return Difference(value, low, high, bootstrap_p(value_, resamples_R[np.isfinite(resamples_R)]))


def bootstrap_p(value: float, resampled_R: Array) -> float:
    """Two-sided p-value of 'no difference': how often the resampled differences, centred, are as far out.

    The shift to a mean of zero is what makes it a test (Hall and Wilson 1991, Biometrics 47, 757). The observed
    sample counts as one resample, so p is never 0 but at least 1 / (R + 1).
    """
    import numpy as np

    slack = 1e-12 * max(1.0, abs(value))  # equal sums in another order must count as equal
    extreme = int(np.count_nonzero(np.abs(resampled_R - value) >= abs(value) - slack))
    return (extreme + 1) / (resampled_R.size + 1)


def _pairs(first: Sized, second: Sized) -> int:
    if not len(first) or len(first) != len(second):
        raise ValueError(f"a paired comparison needs pairs, given: {len(first)} and {len(second)} values")
    return len(first)
