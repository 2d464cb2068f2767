"""How often intervals hold the truth: sets drawn from a population whose number is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tuneloop.stats import intervals

Array = Any


def covered(statistics_NS: Array, combine: Callable[[Array], Array], size: int, sets: int) -> float:
    """The share of `sets` 95 % intervals, each of `size` rows drawn from all, that hold the number of all rows."""
    truth = combine(statistics_NS.sum(axis=0, keepdims=True))[0]
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(sets):
        rows = generator.integers(0, len(statistics_NS), size)
        low, high = intervals.bootstrap_sums(statistics_NS[rows], combine, 0.95)
        held += low <= truth <= high
    return held / sets
