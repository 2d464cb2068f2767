"""multiple_choice: whether the right one of the choices is the likeliest answer, without generating any."""

from __future__ import annotations

from tuneloop.evaluate.metrics import Observation, Score
from tuneloop.evaluate.metrics._choices import ChoiceMetric


class MultipleChoice(ChoiceMetric):
    """1 when the reference is the likeliest of the choices after the prompt, stop token included.

    Choices are the column `choices`, else the distinct references of the set where they are few. Rows whose likeliest
    choices are equally likely are unscored: which one stands first would decide.
    """

    BETTER = "higher"
    AGGREGATION = "proportion"

    @property
    def signature(self) -> str:
        return f"multiple_choice|likelihood_per:{self.per}|stop_token:yes|v1"

    def score(self, observation: Observation) -> Score:
        weighed = self.weighed(observation)
        if isinstance(weighed, str):
            return Score(None, weighed)
        if weighed.best is None:
            return Score(None, "the likeliest choices are equally likely")
        return Score(float(weighed.best == weighed.right))
