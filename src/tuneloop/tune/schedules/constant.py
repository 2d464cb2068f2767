"""Constant learning rate after warm-up."""

from tuneloop.tune.schedules import Schedule


class Constant(Schedule):
    """The peak rate to the end."""

    def curve(self, progress: float) -> float:
        return 1.0
