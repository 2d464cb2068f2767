"""Agreement of two raters on the same items; knows nothing of who rates what."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tuneloop.stats.intervals import Interval, bootstrap_sums, wilson

if TYPE_CHECKING:
    from tuneloop.stats.intervals import Array


class Agreement(NamedTuple):
    """Share of items with equal ratings, and Cohen's kappa with its interval; both None where kappa is undefined."""

    n: int
    share: float
    interval: Interval
    kappa: float | None
    kappa_interval: Interval | None


def agreement(first: Sequence[Hashable], second: Sequence[Hashable], confidence: float = 0.95) -> Agreement:
    """How far two raters agree on N items: Cohen 1960, Educational and Psychological Measurement 20, 37.

    Kappa is (observed - expected) / (1 - expected) agreement; it is undefined where both gave one and the same rating
    to all, since chance alone would agree as well. Raises ValueError without items or for lists of unequal length.
    """
    import numpy as np

    if not first or len(first) != len(second):
        raise ValueError(f"agreement needs two ratings of each item, given: {len(first)} and {len(second)}")
    n, equal = len(first), sum(one == two for one, two in zip(first, second, strict=True))
    ratings = {rating: place for place, rating in enumerate(dict.fromkeys([*first, *second]))}
    size = len(ratings)
    statistics_NS = np.zeros((n, size * size))
    for row, (one, two) in enumerate(zip(first, second, strict=True)):
        statistics_NS[row, ratings[one] * size + ratings[two]] = 1.0
    kappa = float(_kappa(statistics_NS.sum(axis=0, keepdims=True))[0])
    known = np.isfinite(kappa)
    interval = bootstrap_sums(statistics_NS, _kappa, confidence) if known else None
    return Agreement(n, equal / n, wilson(equal, n, confidence), kappa if known else None, interval)


def _kappa(sums_RS: Array) -> Array:
    """[R] kappas of R tables of ratings (first · second); NaN where undefined."""
    import numpy as np

    size = round(sums_RS.shape[1] ** 0.5)
    tables = sums_RS.reshape(-1, size, size) / sums_RS.sum(axis=1)[:, None, None]
    observed = np.trace(tables, axis1=1, axis2=2)
    expected = (tables.sum(axis=1) * tables.sum(axis=2)).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected < 1 - 1e-12, (observed - expected) / (1 - expected), np.nan)
