"""Linear decay after warm-up."""

from pydantic import Field

from tuneloop.tune.schedules import Schedule


class Linear(Schedule):
    """Falls in a straight line to the floor."""

    floor: float = Field(0.0, ge=0, le=1)
    """Share of the peak rate that is left at the end."""

    def curve(self, progress: float) -> float:
        return 1 - (1 - self.floor) * progress
