"""Cosine decay after warm-up (Loshchilov & Hutter 2016, arXiv 1608.03983, without restarts)."""

import math

from pydantic import Field

from tuneloop.tune.schedules import Schedule


class Cosine(Schedule):
    """Half a cosine wave from the peak down to the floor."""

    floor: float = Field(0.0, ge=0, le=1)
    """Share of the peak rate that is left at the end."""

    def curve(self, progress: float) -> float:
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * progress)) / 2
