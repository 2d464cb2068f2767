"""Warm-up, stable, decay (Hu et al. 2024, MiniCPM, arXiv 2404.06395)."""

from pydantic import Field

from tuneloop.tune.schedules import Schedule


class Wsd(Schedule):
    """The peak rate for most of the run, then a straight line to the floor."""

    decay: float = Field(0.2, gt=0, le=1)
    """Share of the steps after warm-up in which the rate falls."""
    floor: float = Field(0.0, ge=0, le=1)
    """Share of the peak rate that is left at the end."""

    def curve(self, progress: float) -> float:
        return 1 - (1 - self.floor) * max(0.0, progress - (1 - self.decay)) / self.decay
