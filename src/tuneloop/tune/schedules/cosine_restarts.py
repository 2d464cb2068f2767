"""Cosine decay with warm restarts (Loshchilov & Hutter 2016, arXiv 1608.03983)."""

import math

from pydantic import Field

from tuneloop.tune.schedules import Schedule


class CosineRestarts(Schedule):
    """The cosine from peak to floor several times; each cycle may be longer than the one before."""

    cycles: int = Field(3, ge=1)
    """Number of falls from the peak to the floor."""
    growth: float = Field(1.0, gt=0)
    """Length of a cycle as a multiple of the one before."""
    floor: float = Field(0.0, ge=0, le=1)
    """Share of the peak rate that is left at the end of each cycle."""

    def curve(self, progress: float) -> float:
        lengths = [self.growth**cycle for cycle in range(self.cycles)]
        left = progress * sum(lengths)
        while len(lengths) > 1 and left >= lengths[0]:
            left -= lengths.pop(0)
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * left / lengths[0])) / 2
