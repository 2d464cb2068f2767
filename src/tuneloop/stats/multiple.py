"""Several tests at once: p-values corrected so that one false alarm among all of them stays rare."""

from __future__ import annotations

from collections.abc import Sequence


def holm(ps: Sequence[float]) -> list[float]:
    """Adjusted p-values by Holm's step-down method (1979, Scand. J. Statist. 6, 65), in the order given.

    Valid whatever the tests have in common. Rejecting where the adjusted value is below alpha keeps the probability of
    any false rejection below alpha. Raises ValueError for what is no p-value.
    """
    if any(not 0 <= p <= 1 for p in ps):
        raise ValueError(f"p-values lie between 0 and 1, given: {list(ps)}")
    adjusted = [0.0] * len(ps)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=lambda place: ps[place])):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[place]))
        adjusted[place] = highest
    return adjusted
